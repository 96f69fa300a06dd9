using System;

namespace ZeroBuffer
{
    /// <summary>The kinds of errors; the numbers are stable, and the same in all languages.</summary>
    public enum ErrorKind
    {
        /// <summary>See <see cref="BadNameException"/>.</summary>
        BadName = 1,
        /// <summary>See <see cref="BadConfigException"/>.</summary>
        BadConfig = 2,
        /// <summary>See <see cref="NotRunningException"/>.</summary>
        NotRunning = 3,
        /// <summary>See <see cref="BusyException"/>.</summary>
        Busy = 4,
        /// <summary>See <see cref="AlreadyRunningException"/>.</summary>
        AlreadyRunning = 5,
        /// <summary>See <see cref="PermissionDeniedException"/>.</summary>
        PermissionDenied = 6,
        /// <summary>See <see cref="ForeignObjectException"/>.</summary>
        ForeignObject = 7,
        /// <summary>See <see cref="IncompatibleException"/>.</summary>
        Incompatible = 8,
        /// <summary>See <see cref="NoSpaceException"/>.</summary>
        NoSpace = 9,
        /// <summary>See <see cref="ChannelTimeoutException"/>.</summary>
        Timeout = 10,
        /// <summary>See <see cref="FullException"/>.</summary>
        Full = 11,
        /// <summary>See <see cref="TooLargeException"/>.</summary>
        TooLarge = 12,
        /// <summary>See <see cref="PeerDiedException"/>.</summary>
        PeerDied = 13,
        /// <summary>See <see cref="PeerClosedException"/>.</summary>
        PeerClosed = 14,
        /// <summary>See <see cref="HandlerFailedException"/>.</summary>
        HandlerFailed = 15,
        /// <summary>See <see cref="ProtocolViolationException"/>.</summary>
        ProtocolViolation = 16,
        /// <summary>See <see cref="WrongProcessException"/>.</summary>
        WrongProcess = 17,
        /// <summary>See <see cref="UnknownSequenceException"/>.</summary>
        UnknownSequence = 18,
        /// <summary>See <see cref="ClaimOpenException"/>.</summary>
        ClaimOpen = 19,
        /// <summary>See <see cref="SequenceExhaustedException"/>.</summary>
        SequenceExhausted = 20,
        /// <summary>See <see cref="InvalidStateException"/>.</summary>
        InvalidState = 21,
        /// <summary>See <see cref="SystemCallException"/>.</summary>
        System = 22,
        /// <summary>See <see cref="UnsupportedException"/>.</summary>
        Unsupported = 23,
        /// <summary>See <see cref="ClosedException"/>.</summary>
        Closed = 24,
        /// <summary>See <see cref="WouldNeverFitException"/>.</summary>
        WouldNeverFit = 100,
        /// <summary>See <see cref="NotConnectedYetException"/>.</summary>
        NotConnectedYet = 101,
        /// <summary>See <see cref="SequenceGapException"/>.</summary>
        SequenceGap = 102,
        /// <summary>See <see cref="MetadataAlreadyWrittenException"/>.</summary>
        MetadataAlreadyWritten = 103,
        /// <summary>See <see cref="EmptyFrameException"/>.</summary>
        EmptyFrame = 104,
        /// <summary>See <see cref="DesynchronisedException"/>.</summary>
        Desynchronised = 105,
        /// <summary>See <see cref="SequenceUnknownException"/>.</summary>
        SequenceUnknown = 106,
    }

    /// <summary>
    /// Everything that can go wrong with a channel, but for <see cref="ChannelTimeoutException"/>, which is a
    /// <see cref="TimeoutException"/>. Catch a derived class to decide and to learn the facts, and show the message to tell a
    /// person what to do.
    /// </summary>
    public class ZeroBufferException : Exception
    {
        internal ZeroBufferException(ErrorKind kind, string message, Exception? inner = null) : base(message, inner)
        {
            Kind = kind;
        }

        /// <summary>One of a program's own, whose <see cref="Kind"/> is 0.</summary>
        public ZeroBufferException(string message) : base(message) { }

        /// <summary>One of a program's own, whose <see cref="Kind"/> is 0, and what caused it.</summary>
        public ZeroBufferException(string message, Exception innerException) : base(message, innerException) { }

        /// <summary>The kind, the same in all languages. One that this assembly does not know has a number without a name.</summary>
        public ErrorKind Kind { get; private set; }

        internal static void ThrowIfFailed(int status)
        {
            if (status != 0)
            {
                throw Last();
            }
        }

        /// <summary>The error of the latest native call that failed on this thread.</summary>
        internal static Exception Last() => Of(new Facts());

        internal static Exception Of(Facts facts)
        {
            var kind = (ErrorKind)facts.Status;
            switch (kind)
            {
                case ErrorKind.BadName: return new BadNameException(facts);
                case ErrorKind.BadConfig: return new BadConfigException(facts);
                case ErrorKind.NotRunning: return new NotRunningException(facts);
                case ErrorKind.Busy: return new BusyException(facts);
                case ErrorKind.AlreadyRunning: return new AlreadyRunningException(facts);
                case ErrorKind.PermissionDenied: return new PermissionDeniedException(facts);
                case ErrorKind.ForeignObject: return new ForeignObjectException(facts);
                case ErrorKind.Incompatible: return new IncompatibleException(facts);
                case ErrorKind.NoSpace: return new NoSpaceException(facts);
                case ErrorKind.Timeout: return new ChannelTimeoutException(facts);
                case ErrorKind.Full: return new FullException(facts);
                case ErrorKind.TooLarge: return new TooLargeException(facts);
                case ErrorKind.PeerDied: return new PeerDiedException(facts);
                case ErrorKind.PeerClosed: return new PeerClosedException(facts);
                case ErrorKind.HandlerFailed: return new HandlerFailedException(facts);
                case ErrorKind.ProtocolViolation: return new ProtocolViolationException(facts);
                case ErrorKind.WrongProcess: return new WrongProcessException(facts);
                case ErrorKind.UnknownSequence: return new UnknownSequenceException(facts);
                case ErrorKind.ClaimOpen: return new ClaimOpenException(facts);
                case ErrorKind.SequenceExhausted: return new SequenceExhaustedException(facts);
                case ErrorKind.InvalidState: return new InvalidStateException(facts);
                case ErrorKind.System: return new SystemCallException(facts);
                case ErrorKind.Unsupported: return new UnsupportedException(facts);
                case ErrorKind.Closed: return new ClosedException(facts);
                case ErrorKind.WouldNeverFit: return new WouldNeverFitException(facts);
                case ErrorKind.NotConnectedYet: return new NotConnectedYetException(facts);
                case ErrorKind.SequenceGap: return new SequenceGapException(facts);
                case ErrorKind.MetadataAlreadyWritten: return new MetadataAlreadyWrittenException(facts);
                case ErrorKind.EmptyFrame: return new EmptyFrameException(facts);
                case ErrorKind.Desynchronised: return new DesynchronisedException(facts);
                case ErrorKind.SequenceUnknown: return new SequenceUnknownException(facts);
                default: return new ZeroBufferException(kind, facts.Message);
            }
        }
    }

    /// <summary>What is known of a request whose server has ended.</summary>
    public enum RequestState
    {
        /// <summary>The handler never ran on it: it is safe to send it again.</summary>
        NotStarted = 1,

        /// <summary>The server had taken it: its effects may or may not have happened.</summary>
        InDoubt = 2,
    }

    /// <summary>A request and what is known of it, as a peer's end leaves it.</summary>
    public sealed class LostRequest
    {
        internal LostRequest(ulong sequence, int state)
        {
            Sequence = sequence;
            State = state == (int)RequestState.NotStarted ? RequestState.NotStarted : RequestState.InDoubt;
        }

        /// <summary>The sequence number that sending it returned.</summary>
        public ulong Sequence { get; private set; }

        /// <summary>Whether its handler may have run.</summary>
        public RequestState State { get; private set; }
    }

    /// <summary>
    /// The peer has ended: <see cref="PeerDiedException"/> or <see cref="PeerClosedException"/>; in version 1
    /// <see cref="WriterDeadException"/> or <see cref="ReaderDeadException"/>, caused by one of these.
    /// </summary>
    /// <example>
    /// <code>
    /// catch (PeerGoneException error) when (error.Request?.State == RequestState.InDoubt)
    /// {
    ///     Console.WriteLine("whether " + error.Request.Sequence + " was worked on is not known");
    /// }
    /// </code>
    /// </example>
    public abstract class PeerGoneException : ZeroBufferException
    {
        private protected PeerGoneException(ErrorKind kind, string message, Exception? inner) : base(kind, message, inner) { }

        internal PeerGoneException(ErrorKind kind, Facts facts) : base(kind, facts.Message)
        {
            Request = facts.RequestState == 0 ? null : new LostRequest(facts.Sequence, facts.RequestState);
        }

        /// <summary>The request that the failed call was about; null if it was about none.</summary>
        public LostRequest? Request { get; private set; }
    }

    /// <summary>The peer's process ended without closing the channel.</summary>
    public sealed class PeerDiedException : PeerGoneException
    {
        internal PeerDiedException(Facts facts) : base(ErrorKind.PeerDied, facts) { }
    }

    /// <summary>The peer closed the channel cleanly.</summary>
    public sealed class PeerClosedException : PeerGoneException
    {
        internal PeerClosedException(Facts facts) : base(ErrorKind.PeerClosed, facts) { }
    }

    /// <summary>A copy of this thread's last native error.</summary>
    internal sealed unsafe class Facts
    {
        internal readonly int Status;
        internal readonly string Message;
        internal readonly string Subject;
        internal readonly string Detail;
        internal readonly ulong Asked;
        internal readonly ulong Allowed;
        internal readonly ulong InFlight;
        internal readonly ulong Sequence;
        internal readonly int RequestState;
        internal readonly int HandlerStatus;
        internal readonly int OsError;

        internal Facts()
        {
            Native.Error* error = Native.zb_last_error();
            Status = error->Status;
            Message = Interop.Text(error->Message, error->MessageLength);
            Subject = Interop.Text(error->Subject, error->SubjectLength);
            Detail = Interop.Text(error->Detail, error->DetailLength);
            Asked = error->Asked;
            Allowed = error->Allowed;
            InFlight = error->InFlight;
            Sequence = error->Sequence;
            RequestState = error->RequestState;
            HandlerStatus = (int)error->HandlerStatus;
            OsError = error->OsError;
        }

        /// <summary>Of nanoseconds.</summary>
        internal TimeSpan AskedTime => new TimeSpan((long)(Asked / 100));
    }
}
