using System;

namespace ZeroBuffer
{
    /// <summary>Edits a copy of each request, in the client's response buffer. For clients of protocol version 1.</summary>
    /// <remarks>
    /// Version 1 has no failed answers: if the handler throws, the channel is closed on the client, which can connect
    /// again.
    /// </remarks>
    /// <example>
    /// <code>
    /// using (var server = MutableDuplexServer.Create("image-proc", new BufferConfig(4096, 1 &lt;&lt; 20)))
    /// {
    ///     server.Start(frame => frame.Data.Reverse());
    /// }
    /// </code>
    /// </example>
    public sealed class MutableDuplexServer : DuplexServer
    {
        private MutableDuplexServer(string name, ServerConfig config) : base(name, config, Mutable) { }

        /// <summary>A server of that name.</summary>
        /// <exception cref="ZeroBufferException">As <see cref="InPlaceDuplexServer.Create"/>.</exception>
        public static MutableDuplexServer Create(string name, ServerConfig config) => new MutableDuplexServer(name, config);

        /// <summary>Runs <paramref name="handler"/> on a copy of every request, whose length stays as it is.</summary>
        /// <exception cref="InvalidStateException">It was started or stopped before.</exception>
        /// <exception cref="ArgumentException">The handler is an <c>async</c> method, which has not finished when it returns.</exception>
        public void Start(Action<Frame> handler) => Serve(HandlerThunk.Checked(handler));

        /// <summary>Refused: nobody would see what the handler returns, nor wait for its task.</summary>
        /// <exception cref="ArgumentException">Always.</exception>
        [Obsolete(HandlerThunk.ReturnsNothing, true)]
        public void Start<T>(Func<Frame, T> handler) => throw new ArgumentException(HandlerThunk.ReturnsNothing, nameof(handler));
    }

    /// <summary>Answers with other bytes than the request's. For clients of protocol version 1.</summary>
    /// <remarks>
    /// As with <see cref="MutableDuplexServer"/>, a handler that throws ends the client's connection.
    /// <see cref="DuplexChannel.IImmutableDuplexServer"/> is version 1's own way to the same.
    /// </remarks>
    /// <example>
    /// <code>
    /// using (var server = ImmutableDuplexServer.Create("image-proc", new BufferConfig(4096, 1 &lt;&lt; 20)))
    /// {
    ///     server.Start(frame => Encoding.UTF8.GetBytes(frame.Size + " bytes"));
    /// }
    /// </code>
    /// </example>
    public sealed class ImmutableDuplexServer : DuplexServer
    {
        private ImmutableDuplexServer(string name, ServerConfig config) : base(name, config, Immutable) { }

        /// <summary>A server of that name.</summary>
        /// <exception cref="ZeroBufferException">As <see cref="InPlaceDuplexServer.Create"/>.</exception>
        public static ImmutableDuplexServer Create(string name, ServerConfig config) => new ImmutableDuplexServer(name, config);

        /// <summary>Runs <paramref name="handler"/> on every request; what it returns is the answer, at least one byte.</summary>
        /// <exception cref="InvalidStateException">It was started or stopped before.</exception>
        public void Start(Func<Frame, byte[]> handler)
        {
            if (handler == null)
            {
                throw new ArgumentNullException(nameof(handler));
            }
            Serve(delegate(Frame frame)
            {
                byte[] answer = handler(frame) ?? throw new InvalidOperationException("the handler returned null");
                answer.CopyTo(frame.Reply(answer.Length));
            });
        }

        /// <summary>Runs <paramref name="handler"/> on every request; it writes the answer with <see cref="Frame.Reply"/>.</summary>
        /// <exception cref="InvalidStateException">It was started or stopped before.</exception>
        /// <exception cref="ArgumentException">The handler is an <c>async</c> method, which has not finished when it returns.</exception>
        public void Start(Action<Frame> handler) => Serve(HandlerThunk.Checked(handler));

        /// <summary>Refused: an answer is a byte array, and nobody would wait for a task.</summary>
        /// <exception cref="ArgumentException">Always.</exception>
        [Obsolete(HandlerThunk.ReturnsBytes, true)]
        public void Start<T>(Func<Frame, T> handler) => throw new ArgumentException(HandlerThunk.ReturnsBytes, nameof(handler));
    }
}
