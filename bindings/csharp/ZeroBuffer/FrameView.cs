using System;
using System.Runtime.InteropServices;
using System.Threading;

namespace ZeroBuffer
{
    /// <summary>
    /// A native view and its memory. Making an object with a finalizer is dear, so a released one is used again.
    /// </summary>
    internal sealed unsafe class ViewLease
    {
        private readonly ViewPool _pool;
        private readonly ViewBlock* _block;

        internal ViewLease(ViewPool pool)
        {
            _pool = pool;
            _block = (ViewBlock*)Marshal.AllocHGlobal(sizeof(ViewBlock));
            *_block = default(ViewBlock);
        }

        ~ViewLease()
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
            get { return &_block->View; }
        }

        /// <summary>To be called with the gate held, once the native library has filled the view.</summary>
        internal void HandOut()
        {
            _pool.HandOut(_block);
        }

        internal void Release()
        {
            _pool.Release(_block);
            _pool.Put(this);
        }
    }

    /// <summary>Lies in native memory, so that being in the list does not keep what was forgotten alive.</summary>
    internal unsafe struct ViewBlock
    {
        internal Native.View View;
        internal ViewBlock* Previous;
        internal ViewBlock* Next;

        /// <summary>Not zero: in the list of its pool.</summary>
        internal int IsOut;
    }

    /// <summary>
    /// The views of a client or reader: one that was released, for the next call, and a list of those that are handed
    /// out and bound to a client for one thread.
    /// </summary>
    internal sealed unsafe class ViewPool
    {
        private readonly Gate _gate;
        private ViewLease _free;
        private ViewBlock* _out;

        /// <summary>Without a gate, views are not bound to anything.</summary>
        internal ViewPool(Gate gate)
        {
            _gate = gate;
        }

        internal ViewLease Take()
        {
            return Interlocked.Exchange(ref _free, null) ?? new ViewLease(this);
        }

        internal void Put(ViewLease lease)
        {
            // One that was there is freed by the collector.
            Volatile.Write(ref _free, lease);
        }

        internal void HandOut(ViewBlock* block)
        {
            if (_gate == null)
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

        internal void Release(ViewBlock* block)
        {
            if (_gate == null)
            {
                Native.zb_view_release(&block->View);
                return;
            }
            _gate.Enter();
            ReleaseInside(block);
            _gate.Exit();
        }

        internal bool TryRelease(ViewBlock* block)
        {
            if (_gate == null)
            {
                Native.zb_view_release(&block->View);
                return true;
            }
            if (!_gate.TryEnter())
            {
                return false;
            }
            ReleaseInside(block);
            _gate.Exit();
            return true;
        }

        /// <summary>
        /// Frees what is handed out from the connection, which is about to end. To be called with the gate held.
        /// </summary>
        internal void DetachAll()
        {
            while (_out != null)
            {
                ViewBlock* block = _out;
                Unlink(block);
                ZeroBufferException.ThrowIfFailed(Native.zb_view_detach(&block->View));
            }
        }

        private void ReleaseInside(ViewBlock* block)
        {
            if (block->IsOut != 0)
            {
                Unlink(block);
            }
            Native.zb_view_release(&block->View);
        }

        private void Unlink(ViewBlock* block)
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

    /// <summary>
    /// Bytes in shared memory that are the holder's to read, until it is disposed: a frame of version 1, or a
    /// <see cref="Response"/>.
    /// </summary>
    /// <remarks>
    /// A span that was taken from it must not be used after <see cref="Dispose"/>, nor when nothing refers to the
    /// frame any more: hold it in a <c>using</c>. It may be disposed on any thread, and outlive its client or reader.
    /// </remarks>
    public unsafe class FrameView : IDisposable
    {
        private ViewLease _lease;

        internal FrameView(ViewLease lease)
        {
            _lease = lease;
            Sequence = lease.View->Sequence;
        }

        /// <summary>The bytes, where the peer left them.</summary>
        /// <exception cref="ObjectDisposedException">They were given back.</exception>
        /// <exception cref="OverflowException">A span cannot be that long; see <see cref="Address"/>.</exception>
        public ReadOnlySpan<byte> Data
        {
            get
            {
                Native.View* view = Lease.View;
                return Interop.ReadOnlySpan(view->Data, view->Length);
            }
        }

        /// <summary>The number of the request that this answers; of a version 1 frame, as its writer counts.</summary>
        public ulong Sequence { get; private set; }

        /// <summary>How many bytes there are.</summary>
        /// <exception cref="ObjectDisposedException">They were given back.</exception>
        public long Length
        {
            get { return Interop.Long(Lease.View->Length); }
        }

        /// <summary>The address of the first byte, for other native code, and for more bytes than a span can have.</summary>
        /// <exception cref="ObjectDisposedException">They were given back.</exception>
        public IntPtr Address
        {
            get { return (IntPtr)Lease.View->Data; }
        }

        /// <summary>A copy of the bytes.</summary>
        /// <exception cref="ObjectDisposedException">They were given back.</exception>
        public byte[] ToArray()
        {
            byte[] copy = Data.ToArray();
            GC.KeepAlive(this);
            return copy;
        }

        /// <summary>Gives the bytes back. Does nothing the second time.</summary>
        public void Dispose()
        {
            ViewLease lease = Interlocked.Exchange(ref _lease, null);
            if (lease != null)
            {
                lease.Release();
            }
        }

        private ViewLease Lease
        {
            get
            {
                ViewLease lease = _lease;
                if (lease == null)
                {
                    throw new ObjectDisposedException(GetType().Name);
                }
                return lease;
            }
        }
    }

    /// <summary>An answer, read in shared memory. Dispose it to give its bytes back to the ring.</summary>
    public sealed class Response : FrameView
    {
        internal Response(ViewLease lease) : base(lease)
        {
        }
    }
}
