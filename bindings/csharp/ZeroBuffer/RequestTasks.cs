using System;
using System.Collections.Concurrent;
using System.Diagnostics;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>Runs a task of the pool for each request.</summary>
    internal sealed class RequestTasks : RequestLoop
    {
        /// <summary>How often requests that are being worked on are asked whether anybody still waits for them.</summary>
        private static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(20);

        /// <summary>The pause before the next try, where memory or descriptors are short.</summary>
        private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(100);

        private readonly DuplexServer _server;
        private readonly Func<Frame, CancellationToken, Task> _handler;
        private readonly ConcurrentDictionary<Running, Task> _running = new ConcurrentDictionary<Running, Task>();
        private readonly Stopwatch _sinceLook = Stopwatch.StartNew();
        private volatile bool _isOver;

        internal RequestTasks(
            DuplexServer server, Func<TimeSpan, Request?> receive, Func<Frame, CancellationToken, Task> handler) : base(receive)
        {
            _server = server;
            _handler = handler;
            Begin();
        }

        /// <summary>
        /// For the time of a stop: handlers may finish. In the last tenth of it the tokens of those that have not are
        /// cancelled, so that they can still answer.
        /// </summary>
        internal void Finish(TimeSpan timeout, Task stopped) => Elsewhere.Run("zerobuffer-cancel", () =>
        {
            var since = Stopwatch.StartNew();
            TimeSpan patience = timeout == Timeout.InfiniteTimeSpan ? timeout : timeout * 0.9;
            TimeSpan left;
            while ((left = Interop.Left(patience, since)) != TimeSpan.Zero)
            {
                bool isLast = left != Timeout.InfiniteTimeSpan && left < Interval;
                if (Task.WaitAny(new[] { stopped }, isLast ? left : Interval) == 0)
                {
                    return;
                }
                CancelUnwanted();
            }
            _isOver = true;
            CancelUnwanted();
        });

        /// <summary>Waits until all handlers have ended, or for so long.</summary>
        internal void AwaitAll(TimeSpan timeout) =>
            Task.WaitAny(new[] { Task.WhenAll(_running.Values) }, Interop.Waitable(timeout));

        protected override TimeSpan AwaitDemand() => _running.IsEmpty ? Timeout.InfiniteTimeSpan : Interval;

        protected override void Take(Request? request)
        {
            if (request != null)
            {
                var running = new Running(_server, request);
                var task = new Task<Task>(() => Run(running));
                _running[running] = task.Unwrap();
                task.Start(TaskScheduler.Default);
            }
            // Each of them is a call of the system.
            if (_isOver || _sinceLook.Elapsed >= Interval)
            {
                _sinceLook.Restart();
                CancelUnwanted();
            }
        }

        /// <summary>What is registered with the tokens runs on a thread of its own, since it may take its time.</summary>
        private void CancelUnwanted()
        {
            Running[] unwanted = _running.Keys.Where(one => (_isOver || one.Request.IsUnwanted) && one.TryCancel()).ToArray();
            if (unwanted.Length > 0)
            {
                Elsewhere.Run("zerobuffer-cancel", () => Array.ForEach(unwanted, Cancel));
            }
        }

        private void Cancel(Running running)
        {
            Handling.OnThread = _server;
            try
            {
                running.Source.Cancel();
            }
            catch (Exception error)
            {
                _server.Report(error);
            }
        }

        /// <summary>As the native library does for handlers of its own threads.</summary>
        protected override bool GoesOn(Exception error)
        {
            switch (error)
            {
                case ObjectDisposedException _:
                case ClosedException _:
                    return false;
                case AlreadyRunningException _:
                case ForeignObjectException _:
                case WrongProcessException _:
                    _server.HasEnded(error);
                    return false;
                case ProtocolViolationException _:
                    // That client is not served any more; the next one is.
                    return true;
                default:
                    Thread.Sleep(Pause);
                    return true;
            }
        }

        private async Task Run(Running running)
        {
            Handling.InTask.Value = running;
            string? failure = null;
            try
            {
                await _handler(running.Request, running.Source.Token).ConfigureAwait(false);
            }
            catch (Exception error)
            {
                failure = ErrorReport.Words(error);
                if (!(error is OperationCanceledException && running.Source.IsCancellationRequested))
                {
                    _server.Report(error);
                }
            }
            running.Server = null;
            try
            {
                running.Request.Answer(failure);
            }
            catch (Exception error) when (error is ZeroBufferException || error is ObjectDisposedException)
            {
                // Its client or server has ended.
            }
            running.Request.Dispose();
            _running.TryRemove(running, out _);
        }
    }

    /// <summary>A request that an async handler has.</summary>
    internal sealed class Running
    {
        private int _isCancelled;

        internal Running(DuplexServer server, Request request)
        {
            Server = server;
            Request = request;
        }

        internal Request Request { get; }

        internal CancellationTokenSource Source { get; } = new CancellationTokenSource();

        /// <summary>Null once the handler has ended: what it has begun may go on, and wait for the server then.</summary>
        internal DuplexServer? Server { get; set; }

        /// <summary>True for one alone.</summary>
        internal bool TryCancel() => Interlocked.Exchange(ref _isCancelled, 1) == 0;
    }

    /// <summary>Whose handler is running: it must not wait for itself.</summary>
    internal static class Handling
    {
        /// <summary>Of a handler that runs on this thread alone.</summary>
        [ThreadStatic]
        internal static DuplexServer? OnThread;

        /// <summary>Of an async one, wherever it is carried on.</summary>
        internal static readonly AsyncLocal<Running?> InTask = new AsyncLocal<Running?>();

        internal static bool IsOf(DuplexServer server) => OnThread == server || InTask.Value?.Server == server;
    }
}
