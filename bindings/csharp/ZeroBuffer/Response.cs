using System;

namespace ZeroBuffer
{
    /// <summary>
    /// A response, read in shared memory: the bytes are the holder's until it is disposed of, which releases them to the
    /// ring.
    /// </summary>
    /// <remarks>
    /// It may be used and disposed on any thread, and outlive its client. A span that was taken from it must not
    /// be used after <see cref="Dispose"/>, nor when nothing refers to the response any more: hold it in a <c>using</c>.
    /// </remarks>
    public sealed unsafe class Response : IDisposable
    {
        private readonly ViewHandle _handle;
        private readonly byte* _data;
        private readonly UIntPtr _length;

        internal Response(Native.View* view)
        {
            _handle = new ViewHandle(view, "Response");
            _data = view->Data;
            _length = view->Length;
            Sequence = view->Sequence;
        }

        /// <summary>The bytes, where the peer left them.</summary>
        /// <exception cref="ObjectDisposedException">They were released.</exception>
        /// <exception cref="OverflowException">A span cannot be that long; see <see cref="Address"/>.</exception>
        public ReadOnlySpan<byte> Data
        {
            get
            {
                _handle.ThrowIfEnded();
                return Interop.ReadOnlySpan(_data, _length);
            }
        }

        /// <summary>The number of the request that this answers.</summary>
        public ulong Sequence { get; private set; }

        /// <summary>How many bytes there are.</summary>
        /// <exception cref="ObjectDisposedException">They were released.</exception>
        public long Length
        {
            get
            {
                _handle.ThrowIfEnded();
                return Interop.Long(_length);
            }
        }

        /// <summary>The address of the first byte, for other native code, and for more bytes than a span can have.</summary>
        /// <exception cref="ObjectDisposedException">They were released.</exception>
        public IntPtr Address
        {
            get
            {
                _handle.ThrowIfEnded();
                return (IntPtr)_data;
            }
        }

        /// <summary>A copy of the bytes. What is disposed meanwhile is released when the copy is made.</summary>
        /// <exception cref="ObjectDisposedException">They were released.</exception>
        public byte[] ToArray()
        {
            _handle.Enter();
            try
            {
                return Interop.ReadOnlySpan(_data, _length).ToArray();
            }
            finally
            {
                _handle.Leave();
            }
        }

        /// <summary>Gives the bytes back. Does nothing the second time.</summary>
        public void Dispose() => _handle.End();
    }
}
