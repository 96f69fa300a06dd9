using System;
using System.Collections.Generic;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>What became of the requests that were sent before <see cref="IDuplexClient.Reconnect"/>.</summary>
    public sealed class Reconnected
    {
        internal Reconnected(KeyValuePair<ulong, ulong>[] resent, LostRequest[] lost)
        {
            Resent = resent;
            Lost = lost;
        }

        /// <summary>Requests that were sent again: their former sequence number, and the new one.</summary>
        public IReadOnlyList<KeyValuePair<ulong, ulong>> Resent { get; private set; }

        /// <summary>Requests that were not.</summary>
        public IReadOnlyList<LostRequest> Lost { get; private set; }
    }

    /// <summary>A client of a channel of either kind. Disposing it closes the channel cleanly; responses that are held stay readable.</summary>
    /// <remarks>
    /// It may be used on any number of threads at once. Timeouts are not negative, or <see cref="Timeout.InfiniteTimeSpan"/>. Calls throw
    /// <see cref="PeerDiedException"/> and <see cref="PeerClosedException"/> once the server has ended,
    /// <see cref="ProtocolViolationException"/> if it breaks the protocol, and <see cref="ObjectDisposedException"/>.
    /// Disposing it ends the waits of all other threads in it, which get that last one.
    /// </remarks>
    public interface IDuplexClient : IDisposable
    {
        /// <summary>The channel's name.</summary>
        string Name { get; }

        /// <summary>Whether the answer lies where the request was.</summary>
        bool IsInPlace { get; }

        /// <summary>Whether the server is there at this moment. Asks the operating system.</summary>
        bool IsServerConnected { get; }

        /// <summary>Two buffers: whether responses may not match, because a request that was cancelled has no response yet.</summary>
        bool IsDesynchronised { get; }

        /// <summary>Requests sent whose answers were not released when the latest one was sent; with two buffers, whose answers have not come.</summary>
        long InFlight { get; }

        /// <summary>The most bytes that a request can have.</summary>
        long MaxRequestSize { get; }

        /// <summary>What the server has published about itself; no bytes if nothing.</summary>
        byte[] ServerMetadata { get; }

        /// <summary>
        /// Sends a copy of <paramref name="data"/> and waits for the answer, both within the timeout. A request that
        /// has no response by then is cancelled.
        /// </summary>
        /// <exception cref="HandlerFailedException">The server's handler threw.</exception>
        /// <exception cref="ChannelTimeoutException">There was no answer in time.</exception>
        /// <exception cref="FullException">There was no room in time.</exception>
        /// <exception cref="TooLargeException">There never is.</exception>
        Response Call(ReadOnlySpan<byte> data, TimeSpan timeout);

        /// <summary>
        /// As <see cref="Call"/>, but never blocks: <paramref name="data"/> is copied before this returns, and a request for
        /// which there is no room waits for its turn in the background, in order, within the timeout.
        /// </summary>
        /// <remarks>
        /// Any number may be under way. In place no thread waits, and responses, timeouts and cancellations need none of
        /// the thread pool; the continuation runs where the caller's context or the pool lets it. Over two buffers each call
        /// has a thread of its own.
        /// </remarks>
        /// <exception cref="OperationCanceledException">Through the task: it was cancelled, and in place the request with it. The server may work on it all the same.</exception>
        /// <exception cref="ObjectDisposedException">The client was disposed of; through the task if that happens later.</exception>
        Task<Response> CallAsync(
            ReadOnlyMemory<byte> data, TimeSpan timeout, CancellationToken cancellation = default(CancellationToken));

        /// <summary>Sends a copy of <paramref name="data"/>, and returns its sequence number.</summary>
        /// <exception cref="FullException">There was no room within <see cref="ClientConfig.SendTimeout"/>.</exception>
        /// <exception cref="TooLargeException">There never is.</exception>
        ulong SendRequest(ReadOnlySpan<byte> data);

        /// <summary>A request of <paramref name="size"/> bytes to be filled where the server will read it.</summary>
        /// <exception cref="ClaimOpenException">This thread has another buffer open.</exception>
        /// <exception cref="FullException">There was no room within <see cref="ClientConfig.SendTimeout"/>, or another thread's buffer stayed open.</exception>
        RequestBuffer AcquireRequestBuffer(long size);

        /// <summary>
        /// As <see cref="AcquireRequestBuffer(long)"/>, in place with room for an answer of
        /// <paramref name="capacity"/> bytes if that is more, at a multiple of <paramref name="alignment"/> (a power
        /// of two up to 4096; 0 for any) from a page boundary.
        /// </summary>
        /// <exception cref="BadConfigException">The alignment is not possible.</exception>
        RequestBuffer AcquireRequestBuffer(long size, long capacity, int alignment);

        /// <summary>The oldest answer that is there, waiting for one until the timeout has passed, which changes nothing.</summary>
        Response ReceiveResponse(TimeSpan timeout);

        /// <summary>
        /// The answer to request <paramref name="sequence"/>, waiting for it until the timeout has passed: then the
        /// request is cancelled, unless the timeout is zero.
        /// </summary>
        /// <exception cref="UnknownSequenceException">No such request is waiting for an answer.</exception>
        Response ReceiveResponseFor(ulong sequence, TimeSpan timeout);

        /// <summary>
        /// Cancels a request: no response to it will be delivered. True if it was cancelled; false if its response is there
        /// already, or if no such request is waiting.
        /// </summary>
        bool Cancel(ulong sequence);

        /// <summary>
        /// Attaches to the channel's present server, after the previous one has exited. A connection that works is left as it
        /// is. Sequence numbers go on. Requests that were in flight are not sent again, but reported as lost; calls under way
        /// fail, or send theirs again with <see cref="ClientConfig.ResendNotStarted"/>. Responses that are held stay.
        /// </summary>
        /// <exception cref="InvalidStateException">A request buffer is open; dispose it first.</exception>
        Reconnected Reconnect(TimeSpan timeout);
    }
}
