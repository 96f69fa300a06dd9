using System;
using System.Collections.Generic;
using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>Edits requests where they lie: no copy, one buffer. <see cref="InPlaceDuplexServer"/> or <see cref="Service"/>.</summary>
    public abstract class InPlaceServer : DuplexServer
    {
        private protected InPlaceServer(string name, ServerConfigBase config) : base(name, config, InPlace) { }

        /// <summary>
        /// Runs <paramref name="handler"/> on every request. What it throws reaches the client as a
        /// <see cref="HandlerFailedException"/> with the message. With several workers it runs on several frames at once.
        /// </summary>
        /// <exception cref="InvalidStateException">It was started or stopped before.</exception>
        /// <exception cref="ArgumentException">The handler is an <c>async</c> method, which has not finished when it returns.</exception>
        public void Start(Action<Frame> handler) => Serve(HandlerThunk.Checked(handler));

        /// <summary>
        /// Runs <paramref name="handler"/> on every request, each in a task of its own: any number at once, answered in the
        /// order in which they end. The frame is the handler's until its task ends, and its bytes are the response then.
        /// </summary>
        /// <remarks>
        /// The token is cancelled when the client cancels the request, closes or dies, within some 20 ms. A server that is stopped
        /// waits for the tasks for <see cref="ServerConfigBase.StopTimeout"/>, and cancels the tokens in the last tenth of it.
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
            Serve(handler ?? throw new ArgumentNullException(nameof(handler)));

        /// <summary>Refused: nobody would see what the handler returns, nor wait for its task.</summary>
        /// <exception cref="ArgumentException">Always.</exception>
        [Obsolete(HandlerThunk.ReturnsNothing, true)]
        public void Start<T>(Func<Frame, T> handler) => throw new ArgumentException(HandlerThunk.ReturnsNothing, nameof(handler));

        /// <summary>
        /// For a server without a handler: waits for the next request until the timeout has passed. Call it again and
        /// again: it also looks after clients that go.
        /// </summary>
        /// <exception cref="ChannelTimeoutException">There was none.</exception>
        /// <exception cref="InvalidStateException">The previous request is not answered, or a handler was started.</exception>
        /// <exception cref="ClosedException">The server was stopped.</exception>
        public Request Receive(TimeSpan timeout) =>
            Take(timeout) ?? throw new ChannelTimeoutException(timeout, "no request came");

        /// <summary>As <see cref="Receive"/>, but it is no error if there was no request: then it is false.</summary>
        /// <example>
        /// <code>
        /// while (server.TryReceive(TimeSpan.FromSeconds(1), out Request request))
        /// {
        ///     request.Data.Reverse();
        ///     request.Respond();
        /// }
        /// </code>
        /// </example>
        /// <exception cref="ZeroBufferException">As <see cref="Receive"/>.</exception>
        public bool TryReceive(TimeSpan timeout, [NotNullWhen(true)] out Request? request)
        {
            request = Take(timeout);
            return request != null;
        }

        /// <summary>
        /// As <see cref="Receive"/>, and no thread of the pool waits. The request is free of the server, as after
        /// <see cref="Request.Detach"/>: others can be received before it is answered.
        /// </summary>
        /// <remarks>
        /// From the first call on, a thread of its own receives whenever somebody waits for a request. So a server is not
        /// collected that was forgotten after that: dispose of it.
        /// </remarks>
        /// <exception cref="OperationCanceledException">Through the task: the token was cancelled, some 20 ms ago at most. A request that comes after that is not taken.</exception>
        /// <exception cref="ClosedException">Through the task: the server was stopped.</exception>
        /// <exception cref="InvalidStateException">A handler was started.</exception>
        public Task<Request> ReceiveAsync(CancellationToken cancellationToken = default) => Queue().ReceiveAsync(cancellationToken)!;

        /// <summary>All requests, one after the other, as from <see cref="ReceiveAsync"/>, until the server is stopped.</summary>
        /// <example>
        /// <code>
        /// await foreach (Request request in server.ReceiveAllAsync(cancellationToken))
        /// {
        ///     request.Data.Reverse();
        ///     request.Respond();
        /// }
        /// </code>
        /// </example>
        /// <exception cref="OperationCanceledException">The token was cancelled.</exception>
        /// <exception cref="InvalidStateException">A handler was started.</exception>
        public async IAsyncEnumerable<Request> ReceiveAllAsync([EnumeratorCancellation] CancellationToken cancellationToken = default)
        {
            RequestQueue queue = Queue();
            while (true)
            {
                Request request;
                try
                {
                    request = (await queue.ReceiveAsync(cancellationToken).ConfigureAwait(false))!;
                }
                catch (Exception error) when (error is ClosedException || error is ObjectDisposedException)
                {
                    yield break;
                }
                yield return request;
            }
        }
    }
}
