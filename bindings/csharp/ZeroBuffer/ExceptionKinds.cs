using System;

namespace ZeroBuffer
{
    /// <summary>The channel name breaks the rules for names.</summary>
    public sealed class BadNameException : ZeroBufferException
    {
        internal BadNameException(Facts facts) : base(ErrorKind.BadName, facts.Message)
        {
            Name = facts.Subject;
            Reason = facts.Detail;
        }

        internal BadNameException(string message, string name, string reason) : base(ErrorKind.BadName, message)
        {
            Name = name;
            Reason = reason;
        }

        /// <summary>The name as given.</summary>
        public string Name { get; private set; }

        /// <summary>The rule that it breaks.</summary>
        public string Reason { get; private set; }
    }

    /// <summary>A configuration value lies outside of what is allowed.</summary>
    public sealed class BadConfigException : ZeroBufferException
    {
        internal BadConfigException(Facts facts) : base(ErrorKind.BadConfig, facts.Message)
        {
            What = facts.Subject;
            Asked = facts.Asked;
            Allowed = facts.Detail;
        }

        /// <summary>The value's name.</summary>
        public string What { get; private set; }

        /// <summary>What was asked.</summary>
        public ulong Asked { get; private set; }

        /// <summary>What is allowed.</summary>
        public string Allowed { get; private set; }
    }

    /// <summary>No server serves the channel; version 1: no reader has the buffer.</summary>
    public class NotRunningException : ZeroBufferException
    {
        private protected NotRunningException(string message) : base(ErrorKind.NotRunning, message) { }

        internal NotRunningException(Facts facts) : base(ErrorKind.NotRunning, facts.Message)
        {
            Name = facts.Subject;
            Found = facts.Detail;
        }

        /// <summary>The channel.</summary>
        public string? Name { get; private set; }

        /// <summary>What was found instead.</summary>
        public string? Found { get; private set; }
    }

    /// <summary>Another client has the channel; version 1: another writer the buffer.</summary>
    public class BusyException : ZeroBufferException
    {
        private protected BusyException(string message) : base(ErrorKind.Busy, message) { }

        internal BusyException(Facts facts) : base(ErrorKind.Busy, facts.Message)
        {
            Name = facts.Subject;
        }

        /// <summary>The channel.</summary>
        public string? Name { get; private set; }
    }

    /// <summary>Another server serves the channel; version 1: another reader has the buffer.</summary>
    public class AlreadyRunningException : ZeroBufferException
    {
        private protected AlreadyRunningException(string message) : base(ErrorKind.AlreadyRunning, message) { }

        internal AlreadyRunningException(Facts facts) : base(ErrorKind.AlreadyRunning, facts.Message)
        {
            Name = facts.Subject;
        }

        /// <summary>The channel.</summary>
        public string? Name { get; private set; }
    }

    /// <summary>The operating system refuses access to an object.</summary>
    public sealed class PermissionDeniedException : ZeroBufferException
    {
        internal PermissionDeniedException(Facts facts) : base(ErrorKind.PermissionDenied, facts.Message)
        {
            Object = facts.Subject;
            Operation = facts.Detail;
        }

        /// <summary>The object's name.</summary>
        public string Object { get; private set; }

        /// <summary>What was attempted.</summary>
        public string Operation { get; private set; }
    }

    /// <summary>An object of that name exists, but is not ours or not what it should be; it was left alone.</summary>
    public sealed class ForeignObjectException : ZeroBufferException
    {
        internal ForeignObjectException(Facts facts) : base(ErrorKind.ForeignObject, facts.Message)
        {
            Object = facts.Subject;
            Owner = facts.Asked;
            Reason = facts.Detail;
        }

        /// <summary>The object's name.</summary>
        public string Object { get; private set; }

        /// <summary>The user id of its owner.</summary>
        public ulong Owner { get; private set; }

        /// <summary>Why it was refused.</summary>
        public string Reason { get; private set; }
    }

    /// <summary>The segment speaks another protocol or version.</summary>
    public sealed class IncompatibleException : ZeroBufferException
    {
        internal IncompatibleException(Facts facts) : base(ErrorKind.Incompatible, facts.Message)
        {
            Object = facts.Subject;
            Field = facts.Detail;
            Found = facts.Asked;
            Expected = facts.Allowed;
        }

        /// <summary>The segment's name.</summary>
        public string Object { get; private set; }

        /// <summary>The field that says so.</summary>
        public string Field { get; private set; }

        /// <summary>Its value.</summary>
        public ulong Found { get; private set; }

        /// <summary>What this library understands.</summary>
        public ulong Expected { get; private set; }
    }

    /// <summary>There is not enough shared memory.</summary>
    public sealed class NoSpaceException : ZeroBufferException
    {
        internal NoSpaceException(Facts facts) : base(ErrorKind.NoSpace, facts.Message)
        {
            Object = facts.Subject;
            Needed = facts.Asked;
        }

        /// <summary>The object's name.</summary>
        public string Object { get; private set; }

        /// <summary>Bytes that it needs.</summary>
        public ulong Needed { get; private set; }
    }

    /// <summary>
    /// The deadline passed. The one error that is no <see cref="ZeroBufferException"/>, so that who expects a
    /// <see cref="TimeoutException"/> gets one.
    /// </summary>
    public sealed class ChannelTimeoutException : TimeoutException
    {
        internal ChannelTimeoutException(Facts facts) : base(facts.Message)
        {
            Waited = facts.AskedTime;
            What = facts.Detail;
        }

        internal ChannelTimeoutException(TimeSpan waited, string what)
            : base("timeout after " + waited + ": " + what)
        {
            Waited = waited;
            What = what;
        }

        /// <summary>How long the call was allowed to take.</summary>
        public TimeSpan Waited { get; private set; }

        /// <summary>What it waited for.</summary>
        public string What { get; private set; }
    }

    /// <summary>The ring had no room until the deadline: responses are being held, or requests unanswered.</summary>
    public class FullException : ZeroBufferException
    {
        private protected FullException(string message) : base(ErrorKind.Full, message) { }

        internal FullException(Facts facts) : base(ErrorKind.Full, facts.Message)
        {
            Needed = facts.Asked;
            Free = facts.Allowed;
            InFlight = facts.InFlight;
        }

        /// <summary>Ring bytes needed.</summary>
        public ulong Needed { get; private set; }

        /// <summary>Ring bytes free.</summary>
        public ulong Free { get; private set; }

        /// <summary>Requests sent and not released yet.</summary>
        public ulong InFlight { get; private set; }
    }

    /// <summary>A request that can never fit this ring, or a length beyond the buffer.</summary>
    public class TooLargeException : ZeroBufferException
    {
        private protected TooLargeException(string message) : base(ErrorKind.TooLarge, message) { }

        internal TooLargeException(Facts facts) : base(ErrorKind.TooLarge, facts.Message)
        {
            Asked = facts.Asked;
            Max = facts.Allowed;
        }

        internal TooLargeException(ulong asked, ulong max) : base(ErrorKind.TooLarge, asked + " bytes are too large: at most " + max + " fit")
        {
            Asked = asked;
            Max = max;
        }

        /// <summary>Bytes asked for.</summary>
        public ulong Asked { get; private set; }

        /// <summary>Bytes possible.</summary>
        public ulong Max { get; private set; }
    }

    /// <summary>The server's handler failed on this request; the data was not delivered.</summary>
    public sealed class HandlerFailedException : ZeroBufferException
    {
        internal HandlerFailedException(Facts facts) : base(ErrorKind.HandlerFailed, facts.Message)
        {
            Sequence = facts.Sequence;
            Status = facts.HandlerStatus;
            HandlerMessage = facts.Detail;
        }

        /// <summary>The request.</summary>
        public ulong Sequence { get; private set; }

        /// <summary>The handler's code: 1 error, 2 panic, 3 dropped unanswered, from 256 the application's.</summary>
        public int Status { get; private set; }

        /// <summary>What the handler said.</summary>
        public string HandlerMessage { get; private set; }
    }

    /// <summary>The peer broke the protocol; the channel cannot be used any more.</summary>
    public sealed class ProtocolViolationException : ZeroBufferException
    {
        internal ProtocolViolationException(Facts facts) : base(ErrorKind.ProtocolViolation, facts.Message)
        {
            Field = facts.Subject;
            Observed = facts.Asked;
            Allowed = facts.Allowed;
        }

        /// <summary>The field that gave it away.</summary>
        public string Field { get; private set; }

        /// <summary>The value seen in it.</summary>
        public ulong Observed { get; private set; }

        /// <summary>The largest, or only, value allowed.</summary>
        public ulong Allowed { get; private set; }
    }

    /// <summary>The handle was made before a fork and is used in the child.</summary>
    public sealed class WrongProcessException : ZeroBufferException
    {
        internal WrongProcessException(Facts facts) : base(ErrorKind.WrongProcess, facts.Message) { }
    }

    /// <summary>No request with that sequence number is waiting for an answer.</summary>
    public sealed class UnknownSequenceException : ZeroBufferException
    {
        internal UnknownSequenceException(Facts facts) : base(ErrorKind.UnknownSequence, facts.Message)
        {
            Sequence = facts.Sequence;
        }

        internal UnknownSequenceException(ulong sequence) : base(ErrorKind.UnknownSequence, "no request " + sequence + " is waiting for an answer")
        {
            Sequence = sequence;
        }

        /// <summary>The number asked for.</summary>
        public ulong Sequence { get; private set; }
    }

    /// <summary>A buffer of this client or writer is open already: commit or dispose it first.</summary>
    public sealed class ClaimOpenException : ZeroBufferException
    {
        internal ClaimOpenException(Facts facts) : base(ErrorKind.ClaimOpen, facts.Message) { }
    }

    /// <summary>All sequence numbers of this connection are used: reconnect.</summary>
    public sealed class SequenceExhaustedException : ZeroBufferException
    {
        internal SequenceExhaustedException(Facts facts) : base(ErrorKind.SequenceExhausted, facts.Message) { }
    }

    /// <summary>The object is not in the state that the call needs.</summary>
    public sealed class InvalidStateException : ZeroBufferException
    {
        internal InvalidStateException(Facts facts) : base(ErrorKind.InvalidState, facts.Message)
        {
            Reason = facts.Detail;
        }

        internal InvalidStateException(string reason) : base(ErrorKind.InvalidState, reason)
        {
            Reason = reason;
        }

        /// <summary>What to do instead.</summary>
        public string Reason { get; private set; }
    }

    /// <summary>A system call failed in a way that has no kind of its own.</summary>
    public sealed class SystemCallException : ZeroBufferException
    {
        internal SystemCallException(Facts facts) : base(ErrorKind.System, facts.Message)
        {
            Object = facts.Subject;
            Operation = facts.Detail;
            OsError = facts.OsError;
        }

        /// <summary>The object's name.</summary>
        public string Object { get; private set; }

        /// <summary>The call.</summary>
        public string Operation { get; private set; }

        /// <summary>The error number, see errno(3).</summary>
        public int OsError { get; private set; }
    }

    /// <summary>The object was closed on this side, possibly by another thread.</summary>
    public sealed class ClosedException : ZeroBufferException
    {
        internal ClosedException(Facts facts) : base(ErrorKind.Closed, facts.Message) { }

        internal ClosedException(string message) : base(ErrorKind.Closed, message) { }
    }

    /// <summary>This platform, or this kind of channel, cannot do it.</summary>
    public sealed class UnsupportedException : ZeroBufferException
    {
        internal UnsupportedException(Facts facts) : base(ErrorKind.Unsupported, facts.Message)
        {
            What = facts.Detail;
        }

        internal UnsupportedException(string what) : base(ErrorKind.Unsupported, "not supported here: " + what)
        {
            What = what;
        }

        /// <summary>What was asked.</summary>
        public string What { get; private set; }
    }

    /// <summary>Version 1: at the ring's present position a frame of this length can never be placed.</summary>
    public sealed class WouldNeverFitException : ZeroBufferException
    {
        internal WouldNeverFitException(Facts facts) : base(ErrorKind.WouldNeverFit, facts.Message)
        {
            Asked = facts.Asked;
            Max = facts.Allowed;
        }

        /// <summary>Bytes of the frame.</summary>
        public ulong Asked { get; private set; }

        /// <summary>The most bytes that can be written next.</summary>
        public ulong Max { get; private set; }
    }

    /// <summary>Version 1: no writer has attached to the buffer yet.</summary>
    public sealed class NotConnectedYetException : ZeroBufferException
    {
        internal NotConnectedYetException(Facts facts) : base(ErrorKind.NotConnectedYet, facts.Message)
        {
            Waited = facts.AskedTime;
        }

        /// <summary>How long the call was allowed to take.</summary>
        public TimeSpan Waited { get; private set; }
    }

    /// <summary>Version 1: a frame is missing; the reader cannot go on.</summary>
    public sealed class SequenceGapException : ZeroBufferException
    {
        internal SequenceGapException(Facts facts) : base(ErrorKind.SequenceGap, facts.Message)
        {
            Expected = facts.Allowed;
            Found = facts.Asked;
        }

        /// <summary>The sequence number that should have come.</summary>
        public ulong Expected { get; private set; }

        /// <summary>The one that came.</summary>
        public ulong Found { get; private set; }
    }

    /// <summary>Version 1: metadata is written once in a buffer's life, and it has been.</summary>
    public sealed class MetadataAlreadyWrittenException : ZeroBufferException
    {
        internal MetadataAlreadyWrittenException(Facts facts) : base(ErrorKind.MetadataAlreadyWritten, facts.Message) { }
    }

    /// <summary>Version 1: a frame has at least one byte.</summary>
    public sealed class EmptyFrameException : ZeroBufferException
    {
        internal EmptyFrameException(Facts facts) : base(ErrorKind.EmptyFrame, facts.Message) { }
    }

    /// <summary>Version 1: answers can no longer be matched with requests; connect again.</summary>
    public sealed class DesynchronisedException : ZeroBufferException
    {
        internal DesynchronisedException(Facts facts) : base(ErrorKind.Desynchronised, facts.Message)
        {
            Reason = facts.Detail;
        }

        /// <summary>What showed it.</summary>
        public string Reason { get; private set; }
    }

    /// <summary>Version 1: a previous writer used the buffer and its last sequence number cannot be determined.</summary>
    public sealed class SequenceUnknownException : ZeroBufferException
    {
        internal SequenceUnknownException(Facts facts) : base(ErrorKind.SequenceUnknown, facts.Message)
        {
            Name = facts.Subject;
        }

        /// <summary>The buffer.</summary>
        public string Name { get; private set; }
    }
}
