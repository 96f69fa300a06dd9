using System;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>Edits requests where they lie: no copy, one buffer. For clients of protocol version 2.</summary>
    /// <example>
    /// <code>
    /// using (var server = InPlaceDuplexServer.Create("image-proc", new BufferConfig(4096, 100 * 1024 * 1024)))
    /// {
    ///     server.Start(frame => frame.Data.Reverse());
    ///     using (var client = DuplexClient.Connect("image-proc"))
    ///     using (var response = client.Call(new byte[] { 1, 2, 3 }, TimeSpan.FromSeconds(5)))
    ///     {
    ///         Console.WriteLine(response.Data[0]); // 3
    ///     }
    /// }
    /// </code>
    /// </example>
    public sealed class InPlaceDuplexServer : DuplexServer
    {
        private InPlaceDuplexServer(string name, ServerConfig config) : base(name, config, InPlace) { }

        /// <summary>A server of that name. Clients can attach as soon as this returns.</summary>
        /// <exception cref="AlreadyRunningException">A server of that name lives.</exception>
        /// <exception cref="NoSpaceException">/dev/shm does not have the memory.</exception>
        /// <exception cref="BadNameException">The name breaks the rules.</exception>
        public static InPlaceDuplexServer Create(string name, ServerConfig config) => new InPlaceDuplexServer(name, config);

        /// <summary>
        /// Runs <paramref name="handler"/> on every request. What it throws reaches the client as a
        /// <see cref="HandlerFailedException"/> with the message. With several workers it runs on several frames at once.
        /// </summary>
        /// <exception cref="InvalidStateException">It was started or stopped before.</exception>
        /// <exception cref="ArgumentException">The handler is an <c>async</c> method, which has not finished when it returns.</exception>
        public void Start(Action<Frame> handler) => Serve(HandlerThunk.Checked(handler));

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
        public void Start(Func<Frame, CancellationToken, Task> handler) =>
            Serve(handler ?? throw new ArgumentNullException("handler"));

        /// <summary>Refused: nobody would see what the handler returns, nor wait for its task.</summary>
        /// <exception cref="ArgumentException">Always.</exception>
        [Obsolete(HandlerThunk.ReturnsNothing, true)]
        public void Start<T>(Func<Frame, T> handler) => throw new ArgumentException(HandlerThunk.ReturnsNothing, "handler");

        /// <summary>
        /// For a server without a handler: waits for the next request until the timeout has passed. Call it again and
        /// again: it also looks after clients that go.
        /// </summary>
        /// <exception cref="ChannelTimeoutException">There was none.</exception>
        /// <exception cref="InvalidStateException">The former request is not answered, or a handler was started.</exception>
        public Request Receive(TimeSpan timeout) => Take(timeout);
    }
}
