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
        private readonly long _holder;
        private readonly byte* _data;
        private readonly UIntPtr _length;

        internal Response(in Native.View view, ViewHandle handle)
        {
            _holder = handle.Take(view);
            _handle = handle;
            _data = view.Data;
            _length = view.Length;
            Sequence = view.Sequence;
        }

        /// <summary>One with a copy of these bytes, for tests of code that uses responses: neither a server nor the native library is needed.</summary>
        /// <example>
        /// <code>
        /// using (Response response = Response.FromBytes(new byte[] { 1, 2, 3 }, sequence: 7))
        /// {
        ///     Console.WriteLine(response.Data[2]); // 3
        /// }
        /// </code>
        /// </example>
        public static Response FromBytes(ReadOnlySpan<byte> data, ulong sequence = 1)
        {
            var handle = new ViewHandle(data, out Native.View view);
            view.Sequence = sequence;
            return new Response(view, handle);
        }

        /// <summary>The bytes, where the peer left them.</summary>
        /// <exception cref="ObjectDisposedException">They were released.</exception>
        /// <exception cref="OverflowException">A span cannot be that long; see <see cref="Address"/>.</exception>
        public ReadOnlySpan<byte> Data
        {
            get
            {
                ThrowIfEnded();
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
                ThrowIfEnded();
                return Interop.Long(_length);
            }
        }

        /// <summary>The address of the first byte, for other native code, and for more bytes than a span can have.</summary>
        /// <exception cref="ObjectDisposedException">They were released.</exception>
        public IntPtr Address
        {
            get
            {
                ThrowIfEnded();
                return (IntPtr)_data;
            }
        }

        /// <summary>A copy of the bytes. What is disposed meanwhile is released when the copy is made.</summary>
        /// <exception cref="ObjectDisposedException">They were released.</exception>
        public byte[] ToArray()
        {
            if (!_handle.TryEnter(_holder))
            {
                throw Ended();
            }
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
        public void Dispose() => _handle.End(_holder);

        private void ThrowIfEnded()
        {
            if (!_handle.IsHeldBy(_holder))
            {
                throw Ended();
            }
        }

        private static ObjectDisposedException Ended() => new ObjectDisposedException("Response");
    }
}
