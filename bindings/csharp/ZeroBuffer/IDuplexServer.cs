using System;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>A server of a channel of any kind, for one client after the other.</summary>
    /// <remarks>
    /// A server that was started serves until it is stopped or disposed, whether or not anything refers to it; when the
    /// process exits in order it is stopped. Handlers run on threads of the native library. What a handler throws
    /// ends neither the thread nor the server. Stopping it, and disposing of it, end the wait of a thread that receives.
    /// </remarks>
    public interface IDuplexServer : IDisposable
    {
        /// <summary>The channel's name.</summary>
        string Name { get; }

        /// <summary>
        /// Whether threads are serving: false before <c>Start</c>, after <see cref="Stop"/>, and if the server had to stop
        /// for a reason of its own.
        /// </summary>
        bool IsRunning { get; }

        /// <summary>Whether a client is attached at this moment.</summary>
        bool IsClientConnected { get; }

        /// <summary>
        /// Stops cleanly: takes nothing more, lets running handlers finish, tells the client, lets it read its responses,
        /// and removes the channel's names. Called again it does nothing.
        /// </summary>
        /// <exception cref="ZeroBufferException">What made the server stop before, if anything did.</exception>
        void Stop();
    }

    /// <summary>Edits requests where they lie: no copy, one buffer. For clients of protocol version 2.</summary>
    public interface IInPlaceDuplexServer : IDuplexServer
    {
        /// <summary>
        /// Runs <paramref name="handler"/> on every request. What it throws reaches the client as a
        /// <see cref="HandlerFailedException"/> with the message. With several workers it runs on several frames at once.
        /// </summary>
        /// <exception cref="InvalidStateException">It was started or stopped before.</exception>
        /// <exception cref="ArgumentException">The handler is an <c>async</c> method, which has not finished when it returns.</exception>
        void Start(Action<Frame> handler);

        /// <summary>
        /// Runs <paramref name="handler"/> on every request, each in a task of its own: any number at once, answered in the
        /// order in which they end. The frame is the handler's until its task ends, and its bytes are the answer then.
        /// </summary>
        /// <remarks>
        /// The token is cancelled when the client cancels the request, closes or dies, within some 20 ms, and when the server
        /// is stopped, which waits for the tasks for <see cref="ServerConfig.StopTimeout"/> at most.
        /// </remarks>
        /// <example>
        /// <code>
        /// server.Start(async (frame, cancellation) =>
        /// {
        ///     await Task.Delay(10, cancellation);
        ///     frame.Data.Reverse();
        /// });
        /// </code>
        /// </example>
        /// <exception cref="InvalidStateException">It was started or stopped before.</exception>
        void Start(Func<Frame, CancellationToken, Task> handler);

        /// <summary>Refused: nobody would see what the handler returns, nor wait for its task.</summary>
        /// <exception cref="ArgumentException">Always.</exception>
        [Obsolete(HandlerThunk.ReturnsNothing, true)]
        void Start<T>(Func<Frame, T> handler);

        /// <summary>
        /// For a server without a handler: waits for the next request until the timeout has passed. Call it again and
        /// again: it also looks after clients that go.
        /// </summary>
        /// <exception cref="ChannelTimeoutException">There was none.</exception>
        /// <exception cref="InvalidStateException">The former request is not answered, or a handler was started.</exception>
        Request Receive(TimeSpan timeout);
    }

    /// <summary>Edits a copy of each request, in the client's response buffer. For clients of protocol version 1.</summary>
    /// <remarks>
    /// Version 1 has no failed answers: if the handler throws, the channel is closed on the client, which can connect
    /// again.
    /// </remarks>
    public interface IMutableDuplexServer : IDuplexServer
    {
        /// <summary>Runs <paramref name="handler"/> on a copy of every request, whose length stays as it is.</summary>
        /// <exception cref="InvalidStateException">It was started or stopped before.</exception>
        /// <exception cref="ArgumentException">The handler is an <c>async</c> method, which has not finished when it returns.</exception>
        void Start(Action<Frame> handler);

        /// <summary>Refused: nobody would see what the handler returns, nor wait for its task.</summary>
        /// <exception cref="ArgumentException">Always.</exception>
        [Obsolete(HandlerThunk.ReturnsNothing, true)]
        void Start<T>(Func<Frame, T> handler);
    }

    /// <summary>Answers with other bytes than the request's. For clients of protocol version 1.</summary>
    /// <remarks>As with <see cref="IMutableDuplexServer"/>, a handler that throws ends the client's connection.</remarks>
    public interface IImmutableDuplexServer : IDuplexServer
    {
        /// <summary>Runs <paramref name="handler"/> on every request; what it returns is the answer, at least one byte.</summary>
        /// <exception cref="InvalidStateException">It was started or stopped before.</exception>
        void Start(Func<Frame, byte[]> handler);

        /// <summary>Runs <paramref name="handler"/> on every request; it writes the answer with <see cref="Frame.Reply"/>.</summary>
        /// <exception cref="InvalidStateException">It was started or stopped before.</exception>
        /// <exception cref="ArgumentException">The handler is an <c>async</c> method, which has not finished when it returns.</exception>
        void Start(Action<Frame> handler);

        /// <summary>Refused: an answer is a byte array, and nobody would wait for a task.</summary>
        /// <exception cref="ArgumentException">Always.</exception>
        [Obsolete(HandlerThunk.ReturnsBytes, true)]
        void Start<T>(Func<Frame, T> handler);
    }
}
