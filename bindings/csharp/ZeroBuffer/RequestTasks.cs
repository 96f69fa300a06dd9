using System;
using System.Collections.Concurrent;
using System.Collections.Generic;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>Takes requests on a thread of its own, and runs a task of the pool for each.</summary>
    internal sealed class RequestTasks
    {
        /// <summary>How often requests that are being worked on are asked whether anybody still waits for them.</summary>
        private static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(20);

        private readonly Func<TimeSpan, Request> _receive;
        private readonly Func<Frame, CancellationToken, Task> _handler;
        private readonly Action<Exception> _report;
        private readonly ConcurrentDictionary<Request, (Task Task, CancellationTokenSource Source)> _running =
            new ConcurrentDictionary<Request, (Task, CancellationTokenSource)>();
        private readonly Thread _thread;

        /// <summary>
        /// <paramref name="receive"/> returns null if there was no request in time, and throws at the end. What a handler
        /// throws, <paramref name="report"/> is told.
        /// </summary>
        internal RequestTasks(
            Func<TimeSpan, Request> receive, Func<Frame, CancellationToken, Task> handler, Action<Exception> report, Request first)
        {
            _receive = receive;
            _handler = handler;
            _report = report;
            _thread = new Thread(() => Serve(first)) { IsBackground = true, Name = "zerobuffer-tasks" };
            _thread.Start();
        }

        internal bool IsServing => _thread.IsAlive;

        /// <summary>Cancels the tokens of all handlers, and waits until these have ended, or for so long. Nothing more is to be received.</summary>
        internal void Stop(TimeSpan timeout)
        {
            _thread.Join();
            var all = new List<Task>();
            foreach (var (task, source) in _running.Values)
            {
                all.Add(task);
                // Elsewhere: what is registered with the token runs in it.
                all.Add(Task.Run(source.Cancel));
            }
            Task.WhenAll(all).ContinueWith(_ => { }, TaskScheduler.Default).Wait(timeout);
        }

        private void Serve(Request request)
        {
            try
            {
                while (true)
                {
                    if (request != null)
                    {
                        request.Detach();
                        Begin(request);
                    }
                    CancelUnwanted();
                    request = _receive(_running.IsEmpty ? Timeout.InfiniteTimeSpan : Interval);
                }
            }
            catch (Exception error) when (error is ZeroBufferException || error is ObjectDisposedException)
            {
                // It was stopped, or cannot go on; then nobody is served any more.
            }
        }

        private void Begin(Request request)
        {
            var source = new CancellationTokenSource();
            var task = new Task<Task>(() => Run(request, source));
            _running[request] = (task.Unwrap(), source);
            task.Start(TaskScheduler.Default);
        }

        private async Task Run(Request request, CancellationTokenSource source)
        {
            string failure = null;
            try
            {
                await _handler(request, source.Token).ConfigureAwait(false);
            }
            catch (Exception error)
            {
                failure = error.Message;
                if (!(error is OperationCanceledException && source.IsCancellationRequested))
                {
                    _report(error);
                }
            }
            try
            {
                request.Answer(failure);
            }
            catch (Exception error) when (error is ZeroBufferException || error is ObjectDisposedException)
            {
                // Its client or server has ended.
            }
            request.Dispose();
            _running.TryRemove(request, out _);
        }

        private void CancelUnwanted()
        {
            foreach (var running in _running)
            {
                if (!running.Value.Source.IsCancellationRequested && running.Key.IsUnwanted)
                {
                    Task.Run(running.Value.Source.Cancel);
                }
            }
        }
    }
}
