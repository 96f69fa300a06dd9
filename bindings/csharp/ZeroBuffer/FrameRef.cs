using System;

namespace ZeroBuffer
{
    /// <summary>
    /// A frame's bytes, for code that wants an object apart from the frame. It does not keep the frame: dispose of that when
    /// nobody needs the bytes any more.
    /// </summary>
    public unsafe class FrameRef
    {
        private readonly Frame? _frame;
        private readonly byte* _data;

        /// <summary>Of bytes that stay where they are as long as this is used, which is the caller's to see to.</summary>
        public FrameRef(byte* dataPtr, int size, ulong sequence)
        {
            _data = dataPtr;
            Size = size;
            Sequence = sequence;
        }

        private FrameRef(Frame frame) : this(frame.Pointer, frame.Size, frame.Sequence)
        {
            _frame = frame;
        }

        /// <summary>Of a frame.</summary>
        /// <exception cref="ArgumentException">The frame has no bytes.</exception>
        /// <exception cref="ObjectDisposedException">The frame was disposed of.</exception>
        public static FrameRef FromFrame(Frame frame) =>
            frame.IsValid ? new FrameRef(frame) : throw new ArgumentException("the frame has no bytes", nameof(frame));

        /// <summary>One without bytes.</summary>
        public static FrameRef Invalid => new FrameRef(null, 0, 0);

        /// <summary>The frame's number.</summary>
        public ulong Sequence { get; }

        /// <summary>How many bytes there are.</summary>
        public int Size { get; }

        /// <summary>Whether there are bytes.</summary>
        public bool IsValid => _data != null && Size > 0;

        /// <summary>The bytes, where they are.</summary>
        /// <exception cref="ObjectDisposedException">The frame was disposed of.</exception>
        public ReadOnlySpan<byte> Span => _frame != null ? _frame.Span : new ReadOnlySpan<byte>(_data, Size);

        /// <summary>A copy of the bytes.</summary>
        /// <exception cref="ObjectDisposedException">The frame was disposed of.</exception>
        public byte[] Data => ToArray();

        /// <summary>A copy of the bytes.</summary>
        /// <exception cref="ObjectDisposedException">The frame was disposed of.</exception>
        public byte[] ToArray() => _frame != null ? _frame.ToArray() : Span.ToArray();
    }

    /// <summary>What can be made of a frame.</summary>
    public static class FrameExtensions
    {
        /// <summary>As <see cref="FrameRef.FromFrame"/>.</summary>
        /// <exception cref="ArgumentException">The frame has no bytes.</exception>
        public static FrameRef ToFrameRef(this Frame frame) => FrameRef.FromFrame(frame);
    }
}
