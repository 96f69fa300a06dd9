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
        private bool _detached;

        internal ViewLease(ViewPool pool)
        {
            _pool = pool;
            View = (Native.View*)Marshal.AllocHGlobal(sizeof(Native.View));
            *View = default(Native.View);
        }

        ~ViewLease()
        {
            Gate gate = _detached ? null : _pool.Gate;
            if (gate != null && !gate.TryEnter())
            {
                // The client is at work for somebody: try again after the next collection.
                GC.ReRegisterForFinalize(this);
                return;
            }
            Native.zb_view_release(View);
            if (gate != null)
            {
                gate.Exit();
            }
            Marshal.FreeHGlobal((IntPtr)View);
        }

        internal Native.View* View { get; private set; }

        internal void Release()
        {
            Gate gate = _detached ? null : _pool.Gate;
            if (gate != null)
            {
                gate.Enter();
            }
            Native.zb_view_release(View);
            if (gate != null)
            {
                gate.Exit();
            }
            _detached = false;
            _pool.Put(this);
        }

        internal void Detach()
        {
            Gate gate = _detached ? null : _pool.Gate;
            if (gate != null)
            {
                gate.Enter();
            }
            int status = Native.zb_view_detach(View);
            if (gate != null)
            {
                gate.Exit();
            }
            ZeroBufferException.ThrowIfFailed(status);
            _detached = true;
        }
    }

    /// <summary>Keeps one released view of a client or reader for its next call.</summary>
    internal sealed class ViewPool
    {
        private ViewLease _free;

        internal ViewPool(Gate gate)
        {
            Gate = gate;
        }

        internal Gate Gate { get; private set; }

        internal ViewLease Take()
        {
            return Interlocked.Exchange(ref _free, null) ?? new ViewLease(this);
        }

        internal void Put(ViewLease lease)
        {
            // One that was there is freed by the collector.
            Volatile.Write(ref _free, lease);
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

        /// <summary>
        /// Frees it from its client: disposing the client closes the connection at once, while these bytes stay, and
        /// disposing this does not wait for a call of the client.
        /// </summary>
        /// <remarks>From then on the connection counts with locked instructions, which costs some nanoseconds for each request.</remarks>
        /// <exception cref="ObjectDisposedException">The bytes were given back.</exception>
        public void Detach()
        {
            Lease.Detach();
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
