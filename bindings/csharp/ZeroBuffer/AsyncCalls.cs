using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>
    /// Calls whose answers no thread waits for. One task looks for all of them, as long as there are any, so a call
    /// costs no thread, and the client stays free for others between two looks.
    /// </summary>
    internal sealed class AsyncCalls
    {
        /// <summary>How long it looks all the time, before it sleeps for a millisecond after each look.</summary>
        private static readonly long Eager = Stopwatch.Frequency / 10000;

        private readonly DuplexClient _client;
        private readonly List<Call> _calls = new List<Call>();
        private bool _looking;

        internal AsyncCalls(DuplexClient client)
        {
            _client = client;
        }

        /// <summary>To be called inside of the client, where the number is this call's.</summary>
        internal Task<Response> Add(ulong sequence, TimeSpan timeout, CancellationToken cancellation)
        {
            var call = new Call(sequence, timeout, cancellation);
            lock (_calls)
            {
                _calls.Add(call);
                if (!_looking)
                {
                    _looking = true;
                    Task.Run((Action)LookForAll);
                }
            }
            return call.Task;
        }

        /// <summary>Fails all calls, whose requests end with their client.</summary>
        internal void EndAll(Func<Exception> reason)
        {
            foreach (Call call in TakeAll())
            {
                call.Fail(reason());
            }
        }

        /// <summary>Gives all requests up, and fails their calls. To be called inside of the client.</summary>
        internal void GiveUpAllInside(Func<Exception> reason)
        {
            foreach (Call call in TakeAll())
            {
                GiveUp(call);
                call.Fail(reason());
            }
        }

        private Call[] TakeAll()
        {
            lock (_calls)
            {
                Call[] all = _calls.ToArray();
                _calls.Clear();
                foreach (Call call in all)
                {
                    call.IsForgotten = true;
                }
                return all;
            }
        }

        private void LookForAll()
        {
            long latest = Stopwatch.GetTimestamp();
            Call[] calls;
            while ((calls = Pending()) != null)
            {
                bool any = false;
                foreach (Call call in calls)
                {
                    any |= Look(call);
                }
                long now = Stopwatch.GetTimestamp();
                if (any)
                {
                    latest = now;
                }
                else if (now - latest > Eager)
                {
                    Thread.Sleep(1);
                }
                else
                {
                    Thread.SpinWait(20);
                }
            }
        }

        /// <summary>The calls under way; null if there are none, after which the next one starts another look.</summary>
        private Call[] Pending()
        {
            lock (_calls)
            {
                _looking = _calls.Count > 0;
                return _looking ? _calls.ToArray() : null;
            }
        }

        /// <summary>True if the call has ended.</summary>
        private bool Look(Call call)
        {
            try
            {
                _client.Handle.Enter();
            }
            catch (ObjectDisposedException disposed)
            {
                return Forget(call) && call.Fail(disposed);
            }
            try
            {
                return !call.IsForgotten && LookInside(call);
            }
            finally
            {
                _client.Handle.Leave();
            }
        }

        private bool LookInside(Call call)
        {
            if (call.IsCancelled)
            {
                return Forget(call) && GiveUp(call) && call.EndCancelled();
            }
            Exception error;
            Response response = _client.LookInside(call.Sequence, out error);
            if (response != null)
            {
                if (!Forget(call))
                {
                    response.Dispose();
                    return false;
                }
                return call.Succeed(response);
            }
            if (error != null)
            {
                return Forget(call) && call.Fail(error);
            }
            return call.IsLate && Forget(call) && GiveUp(call) && call.EndLate();
        }

        /// <summary>False if somebody else has ended the call.</summary>
        private bool Forget(Call call)
        {
            lock (_calls)
            {
                call.IsForgotten = true;
                return _calls.Remove(call);
            }
        }

        private bool GiveUp(Call call)
        {
            if (!_client.CancelInside(call.Sequence))
            {
                // A response that came before its request was cancelled would keep its room in the ring for ever.
                Exception error;
                Response response = _client.LookInside(call.Sequence, out error);
                if (response != null)
                {
                    response.Dispose();
                }
            }
            return true;
        }

        private sealed class Call
        {
            private readonly TaskCompletionSource<Response> _source =
                new TaskCompletionSource<Response>(TaskCreationOptions.RunContinuationsAsynchronously);
            private readonly Stopwatch _since = Stopwatch.StartNew();
            private readonly TimeSpan _timeout;
            private readonly CancellationToken _cancellation;

            internal Call(ulong sequence, TimeSpan timeout, CancellationToken cancellation)
            {
                Sequence = sequence;
                _timeout = timeout;
                _cancellation = cancellation;
            }

            internal ulong Sequence { get; private set; }

            /// <summary>Whether it is ended already, or somebody is about to end it.</summary>
            internal volatile bool IsForgotten;

            internal Task<Response> Task
            {
                get { return _source.Task; }
            }

            internal bool IsCancelled
            {
                get { return _cancellation.IsCancellationRequested; }
            }

            internal bool IsLate
            {
                get { return _timeout != Timeout.InfiniteTimeSpan && _since.Elapsed >= _timeout; }
            }

            internal bool Succeed(Response response)
            {
                return _source.TrySetResult(response);
            }

            internal bool Fail(Exception error)
            {
                return _source.TrySetException(error);
            }

            internal bool EndCancelled()
            {
                return _source.TrySetCanceled(_cancellation);
            }

            internal bool EndLate()
            {
                return Fail(new ChannelTimeoutException(_timeout, "waiting for a response"));
            }
        }
    }
}
