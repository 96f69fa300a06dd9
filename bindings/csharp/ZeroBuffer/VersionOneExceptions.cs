using System;

namespace ZeroBuffer
{
    /// <summary>Version 1: no reader has made the buffer.</summary>
    public class BufferNotFoundException : NotRunningException
    {
        internal BufferNotFoundException(Facts facts) : base(facts) { }

        /// <summary>One with this message.</summary>
        public BufferNotFoundException(string message) : base(message) { }

        /// <summary>One for the buffer of that name. What <paramref name="isName"/> says does not matter.</summary>
        public BufferNotFoundException(string bufferName, bool isName) : base("there is no buffer '" + bufferName + "'") { }
    }

    /// <summary>Version 1: the buffer has another writer.</summary>
    public class WriterAlreadyConnectedException : BusyException
    {
        internal WriterAlreadyConnectedException(Facts facts) : base(facts) { }

        /// <summary>One without details.</summary>
        public WriterAlreadyConnectedException() : base("the buffer has another writer") { }
    }

    /// <summary>Version 1: the buffer has another reader.</summary>
    public class ReaderAlreadyConnectedException : AlreadyRunningException
    {
        internal ReaderAlreadyConnectedException(Facts facts) : base(facts) { }

        /// <summary>One without details.</summary>
        public ReaderAlreadyConnectedException() : base("the buffer has another reader") { }
    }

    /// <summary>Version 1: the buffer can never take a frame of that length.</summary>
    public class FrameTooLargeException : TooLargeException
    {
        internal FrameTooLargeException(Facts facts) : base(facts) { }

        /// <summary>One without details.</summary>
        public FrameTooLargeException() : base("the frame is too large for the buffer") { }
    }

    /// <summary>Version 1: there was no room for the frame in time.</summary>
    public class BufferFullException : FullException
    {
        internal BufferFullException(Facts facts) : base(facts) { }

        /// <summary>One without details.</summary>
        public BufferFullException() : base("the buffer is full") { }
    }

    /// <summary>
    /// Version 1: the buffer's writer has ended, and all that it had written was read; or no writer had come when the wait was
    /// over. <see cref="Exception.InnerException"/> says which.
    /// </summary>
    public class WriterDeadException : PeerGoneException
    {
        internal WriterDeadException(ZeroBufferException cause) : base(cause.Kind, cause.Message, cause) { }

        /// <summary>One without details.</summary>
        public WriterDeadException() : base(ErrorKind.PeerDied, "the buffer's writer has ended", null) { }
    }

    /// <summary>Version 1: the buffer's reader has ended. <see cref="Exception.InnerException"/> says how.</summary>
    public class ReaderDeadException : PeerGoneException
    {
        internal ReaderDeadException(ZeroBufferException cause) : base(cause.Kind, cause.Message, cause) { }

        /// <summary>One without details.</summary>
        public ReaderDeadException() : base(ErrorKind.PeerDied, "the buffer's reader has ended", null) { }
    }

    /// <summary>What readers and writers of version 1 throw for an error of the native library.</summary>
    internal static class VersionOneErrors
    {
        internal static Exception OfReader(Facts facts) => Of(facts, cause => new WriterDeadException(cause));

        internal static Exception OfWriter(Facts facts) => Of(facts, cause => new ReaderDeadException(cause));

        private static Exception Of(Facts facts, Func<ZeroBufferException, Exception> dead)
        {
            switch ((ErrorKind)facts.Status)
            {
                case ErrorKind.NotRunning: return new BufferNotFoundException(facts);
                case ErrorKind.Busy: return new WriterAlreadyConnectedException(facts);
                case ErrorKind.AlreadyRunning: return new ReaderAlreadyConnectedException(facts);
                case ErrorKind.TooLarge: return new FrameTooLargeException(facts);
                case ErrorKind.Full:
                case ErrorKind.WouldNeverFit: return new BufferFullException(facts);
                case ErrorKind.PeerDied:
                case ErrorKind.PeerClosed:
                case ErrorKind.NotConnectedYet: return dead((ZeroBufferException)ZeroBufferException.Of(facts));
                case ErrorKind.MetadataAlreadyWritten:
                    return new InvalidOperationException(facts.Message, ZeroBufferException.Of(facts));
                default: return ZeroBufferException.Of(facts);
            }
        }
    }
}
