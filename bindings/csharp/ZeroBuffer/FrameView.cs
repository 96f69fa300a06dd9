using System;
using System.Threading;

namespace ZeroBuffer
{
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
        // Copies: while its connection ends, the native library takes the view apart and puts it together again. The
        // bytes stay where they are.
        private readonly byte* _data;
        private readonly UIntPtr _length;
        private Lease _lease;

        internal FrameView(Lease lease)
        {
            _lease = lease;
            _data = lease.View->Data;
            _length = lease.View->Length;
            Sequence = lease.View->Sequence;
        }

        /// <summary>The bytes, where the peer left them.</summary>
        /// <exception cref="ObjectDisposedException">They were given back.</exception>
        /// <exception cref="OverflowException">A span cannot be that long; see <see cref="Address"/>.</exception>
        public ReadOnlySpan<byte> Data
        {
            get
            {
                ThrowIfDisposed();
                return Interop.ReadOnlySpan(_data, _length);
            }
        }

        /// <summary>The number of the request that this answers; of a version 1 frame, as its writer counts.</summary>
        public ulong Sequence { get; private set; }

        /// <summary>How many bytes there are.</summary>
        /// <exception cref="ObjectDisposedException">They were given back.</exception>
        public long Length
        {
            get
            {
                ThrowIfDisposed();
                return Interop.Long(_length);
            }
        }

        /// <summary>The address of the first byte, for other native code, and for more bytes than a span can have.</summary>
        /// <exception cref="ObjectDisposedException">They were given back.</exception>
        public IntPtr Address
        {
            get
            {
                ThrowIfDisposed();
                return (IntPtr)_data;
            }
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
            Lease lease = Interlocked.Exchange(ref _lease, null);
            if (lease != null)
            {
                lease.Release();
            }
        }

        private void ThrowIfDisposed()
        {
            if (_lease == null)
            {
                throw new ObjectDisposedException(GetType().Name);
            }
        }
    }

    /// <summary>An answer, read in shared memory. Dispose it to give its bytes back to the ring.</summary>
    public sealed class Response : FrameView
    {
        internal Response(Lease lease) : base(lease)
        {
        }
    }
}
