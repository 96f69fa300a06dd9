using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>
    /// Hands requests to those who wait for one, in their order, and takes none that nobody waits for: the last who waits
    /// cannot leave while one may be taken for it.
    /// </summary>
    internal sealed class RequestQueue : RequestLoop
    {
        /// <summary>How late the last who waits may leave before its time, as when it is cancelled.</summary>
        private static readonly TimeSpan Slice = TimeSpan.FromMilliseconds(20);

        private readonly object _lock = new object();

        /// <summary>Those who wait, with nobody among them whose task has ended.</summary>
        private readonly List<Waiting> _waiting = new List<Waiting>();

        /// <summary>What receiving ends with.</summary>
        private Exception? _end;

        internal RequestQueue(Func<TimeSpan, Request?> receive) : base(receive) => Begin();

        internal Task<Request?> ReceiveAsync(CancellationToken cancellationToken)
        {
            if (cancellationToken.IsCancellationRequested)
            {
                return Task.FromCanceled<Request?>(cancellationToken);
            }
            var waiting = new Waiting(Timeout.InfiniteTimeSpan, cancellationToken);
            Add(waiting);
            if (cancellationToken.CanBeCanceled)
            {
                CancellationTokenRegistration registration = cancellationToken.Register(() => LetGo(waiting));
                waiting.Task.ContinueWith(_ => registration.Dispose(), TaskScheduler.Default);
            }
            return waiting.Task;
        }

        /// <summary>Null if there was none in time.</summary>
        internal Request? Receive(TimeSpan timeout)
        {
            // What is no timeout is said before anybody waits.
            Interop.Nanoseconds(timeout);
            var waiting = new Waiting(timeout, CancellationToken.None);
            Add(waiting);
            if (Task.WaitAny(new Task[] { waiting.Task }, Interop.Waitable(timeout)) < 0)
            {
                LetGo(waiting);
            }
            return waiting.Task.GetAwaiter().GetResult();
        }

        private void Add(Waiting waiting)
        {
            lock (_lock)
            {
                if (_end != null)
                {
                    waiting.SetException(_end);
                    return;
                }
                _waiting.Add(waiting);
                Monitor.Pulse(_lock);
            }
        }

        /// <summary>Its time is over. If it is the last, it is let go when nothing can be taken for it any more.</summary>
        private void LetGo(Waiting waiting)
        {
            lock (_lock)
            {
                if (_waiting.Any(other => other != waiting && !other.IsOver) && _waiting.Remove(waiting))
                {
                    waiting.GiveUp();
                }
            }
        }

        /// <summary>Takes nothing more. Who still waits learns it when the thread that receives has come back.</summary>
        internal void End(Exception error)
        {
            lock (_lock)
            {
                _end = _end ?? error;
                Monitor.Pulse(_lock);
            }
        }

        protected override TimeSpan AwaitDemand()
        {
            lock (_lock)
            {
                while (_end == null)
                {
                    foreach (Waiting over in _waiting.Where(one => one.IsCancelled || (one.WasTriedFor && one.IsOver)).ToList())
                    {
                        _waiting.Remove(over);
                        over.GiveUp();
                    }
                    if (_waiting.Count > 0)
                    {
                        return Demand();
                    }
                    Monitor.Wait(_lock);
                }
                throw _end;
            }
        }

        /// <summary>How long to receive for those who wait.</summary>
        private TimeSpan Demand()
        {
            _waiting.ForEach(one => one.WasTriedFor = true);
            return _waiting.Any(one => !one.MayLeave)
                ? Timeout.InfiniteTimeSpan
                : _waiting.Select(one => one.Left).Append(Slice).Min();
        }

        protected override void Take(Request? request)
        {
            if (request != null)
            {
                lock (_lock)
                {
                    // It was taken for somebody, who is still there.
                    (Next(one => !one.IsOver) ?? Next(_ => true))!.SetResult(request);
                }
            }
        }

        /// <summary>The first of those; it waits no longer.</summary>
        private Waiting? Next(Predicate<Waiting> which)
        {
            int index = _waiting.FindIndex(which);
            if (index < 0)
            {
                return null;
            }
            Waiting next = _waiting[index];
            _waiting.RemoveAt(index);
            return next;
        }

        protected override bool GoesOn(Exception error)
        {
            lock (_lock)
            {
                if (!(error is ClosedException || error is ObjectDisposedException))
                {
                    Next(_ => true)?.SetException(error);
                    return true;
                }
                _end = _end ?? error;
                while (Next(_ => true) is Waiting waiting)
                {
                    waiting.SetException(_end);
                }
                return false;
            }
        }

        /// <summary>One who waits for a request. Its task ends under the lock.</summary>
        private sealed class Waiting : TaskCompletionSource<Request?>
        {
            private readonly TimeSpan _timeout;
            private readonly CancellationToken _cancellation;
            private readonly Stopwatch _since = Stopwatch.StartNew();

            internal Waiting(TimeSpan timeout, CancellationToken cancellation)
                : base(TaskCreationOptions.RunContinuationsAsynchronously)
            {
                _timeout = timeout;
                _cancellation = cancellation;
            }

            /// <summary>Whether the native library was asked for a request since it waits: also who has no time gets one that is there.</summary>
            internal bool WasTriedFor { get; set; }

            internal bool MayLeave => _cancellation.CanBeCanceled || _timeout != Timeout.InfiniteTimeSpan;

            internal TimeSpan Left =>
                _timeout == Timeout.InfiniteTimeSpan ? TimeSpan.MaxValue : Interop.Left(_timeout, _since);

            internal bool IsCancelled => _cancellation.IsCancellationRequested;

            internal bool IsOver => IsCancelled || Left == TimeSpan.Zero;

            internal void GiveUp()
            {
                if (IsCancelled)
                {
                    TrySetCanceled(_cancellation);
                }
                else
                {
                    SetResult(null);
                }
            }
        }
    }
}
