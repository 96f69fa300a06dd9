using System;
using System.Runtime.InteropServices;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>
    /// A native guard, which is a view to read or a buffer to fill, and the memory that it lies in. Making an object with a
    /// finalizer is dear, so one that was released is used again.
    /// </summary>
    internal sealed unsafe class Lease
    {
        private readonly LeasePool _pool;
        private readonly LeaseBlock* _block;

        internal Lease(LeasePool pool)
        {
            _pool = pool;
            _block = (LeaseBlock*)Marshal.AllocHGlobal(sizeof(LeaseBlock));
            *_block = default(LeaseBlock);
        }

        ~Lease()
        {
            if (!_pool.TryRelease(_block))
            {
                // The client is at work for somebody: try again after the next collection.
                GC.ReRegisterForFinalize(this);
                return;
            }
            Marshal.FreeHGlobal((IntPtr)_block);
        }

        internal Native.View* View
        {
            get { return &_block->Guard; }
        }

        internal Native.Buffer* Buffer
        {
            get { return (Native.Buffer*)&_block->Guard; }
        }

        /// <summary>To be called inside of the client, once the native library has filled the guard.</summary>
        internal void HandOut()
        {
            _pool.HandOut(_block);
        }

        /// <summary>Gives back what the guard holds, if it holds anything.</summary>
        internal void Release()
        {
            _pool.Release(_block);
            _pool.Put(this);
        }
    }

    /// <summary>Lies in native memory, so that being in the list does not keep what was forgotten alive.</summary>
    internal unsafe struct LeaseBlock
    {
        /// <summary>A view, or the shorter buffer in its place. All zero, it holds nothing.</summary>
        internal Native.View Guard;
        internal LeaseBlock* Previous;
        internal LeaseBlock* Next;

        /// <summary>Not zero: in the list of its pool.</summary>
        internal int IsOut;
    }

    /// <summary>
    /// The views or the buffers of one client, reader or writer: one that was released, for the next call, and, where only
    /// one thread may be inside, a list of those that are handed out.
    /// </summary>
    internal sealed unsafe class LeasePool
    {
        // Not only its gate: as long as something that is handed out can be reached, so can the handle, and the
        // collector does not close it while guards are given back on another thread.
        private readonly Door _door;
        private readonly bool _buffers;
        private Lease _free;
        private LeaseBlock* _out;

        /// <summary>Through a door for many, guards may be given back on any thread at any time.</summary>
        internal LeasePool(Door door, bool buffers)
        {
            _door = door;
            _buffers = buffers;
        }

        /// <summary>Whether something that only this client's thread may give back is handed out. To be asked inside.</summary>
        internal bool IsAnyOut
        {
            get { return _out != null; }
        }

        internal Lease Take()
        {
            return Interlocked.Exchange(ref _free, null) ?? new Lease(this);
        }

        internal void Put(Lease lease)
        {
            // One that was there is freed by the collector.
            Volatile.Write(ref _free, lease);
        }

        internal void HandOut(LeaseBlock* block)
        {
            if (_door.Gate == null)
            {
                return;
            }
            block->IsOut = 1;
            block->Previous = null;
            block->Next = _out;
            if (_out != null)
            {
                _out->Previous = block;
            }
            _out = block;
        }

        internal void Release(LeaseBlock* block)
        {
            if (_door.Gate != null)
            {
                _door.Gate.Enter();
            }
            ReleaseInside(block);
        }

        internal bool TryRelease(LeaseBlock* block)
        {
            if (_door.Gate != null && !_door.Gate.TryEnter())
            {
                return false;
            }
            ReleaseInside(block);
            return true;
        }

        private void ReleaseInside(LeaseBlock* block)
        {
            if (block->IsOut != 0)
            {
                Unlink(block);
            }
            if (_buffers)
            {
                Native.zb_buffer_abandon((Native.Buffer*)&block->Guard);
            }
            else
            {
                Native.zb_view_release(&block->Guard);
            }
            if (_door.Gate != null)
            {
                _door.Gate.Exit();
            }
        }

        /// <summary>
        /// Frees what is handed out from a connection that is about to end: views stay readable, buffers are given up. To
        /// be called inside.
        /// </summary>
        internal void EndAll()
        {
            while (_out != null)
            {
                LeaseBlock* block = _out;
                Unlink(block);
                if (_buffers)
                {
                    Native.zb_buffer_abandon((Native.Buffer*)&block->Guard);
                }
                else
                {
                    ZeroBufferException.ThrowIfFailed(Native.zb_view_detach(&block->Guard));
                }
            }
        }

        private void Unlink(LeaseBlock* block)
        {
            block->IsOut = 0;
            if (block->Previous != null)
            {
                block->Previous->Next = block->Next;
            }
            else
            {
                _out = block->Next;
            }
            if (block->Next != null)
            {
                block->Next->Previous = block->Previous;
            }
        }
    }
}
