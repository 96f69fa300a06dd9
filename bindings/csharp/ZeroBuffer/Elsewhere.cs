using System;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer
{
    /// <summary>Work that waits, on threads of its own: the pool's are left to the program.</summary>
    internal static class Elsewhere
    {
        /// <summary>Runs it on a new thread of that name, which keeps nothing of the caller's context.</summary>
        internal static Task Run(string name, Action work)
        {
            using (Quiet())
            {
                return Task.Factory.StartNew(
                    () =>
                    {
                        Thread.CurrentThread.Name = name;
                        work();
                    },
                    CancellationToken.None,
                    TaskCreationOptions.LongRunning,
                    TaskScheduler.Default);
            }
        }

        /// <summary>Until it is disposed of, nothing that is begun keeps the caller's context.</summary>
        internal static IDisposable? Quiet() =>
            ExecutionContext.IsFlowSuppressed() ? (IDisposable?)null : ExecutionContext.SuppressFlow();

        /// <summary>The end of <paramref name="task"/>, unless the token is cancelled before.</summary>
        internal static async Task Ended(Task task, CancellationToken cancellationToken)
        {
            var cancelled = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
            using (cancellationToken.Register(() => cancelled.TrySetCanceled(cancellationToken)))
            {
                await (await Task.WhenAny(task, cancelled.Task).ConfigureAwait(false)).ConfigureAwait(false);
            }
        }
    }
}
