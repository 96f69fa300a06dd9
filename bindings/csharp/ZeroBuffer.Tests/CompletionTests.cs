using System;
using System.Diagnostics;
using System.Linq;
using System.Reflection;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Tests
{
    /// <summary>CallAsync needs no thread of the pool, never blocks, and completes each call, whatever happens.</summary>
    internal static class CompletionTests
    {
        private static readonly TimeSpan Forever = Timeout.InfiniteTimeSpan;

        /// <summary>While all threads of the pool wait.</summary>
        private static void WithBusyPool(Action test)
        {
            ThreadPool.GetMaxThreads(out int workers, out int others);
            int count = Environment.ProcessorCount;
            Check.That(ThreadPool.SetMaxThreads(count, others), "the pool has another size");
            using (var release = new ManualResetEventSlim())
            using (var waiting = new CountdownEvent(count))
            {
                Task[] busy = Enumerable.Range(0, count).Select(_ => Task.Run(() =>
                {
                    waiting.Signal();
                    release.Wait();
                })).ToArray();
                try
                {
                    Check.That(waiting.Wait(Scene.Patience), "the pool's threads do not come");
                    Task behind = Task.Run(() => { });
                    test();
                    Check.That(!behind.IsCompleted, "the pool had a thread");
                }
                finally
                {
                    release.Set();
                    Task.WaitAll(busy);
                    ThreadPool.SetMaxThreads(workers, others);
                }
            }
        }

        private static void Ends<T>(Task call) where T : Exception
        {
            try
            {
                Check.That(call.Wait(Scene.Patience), "the call does not end");
            }
            catch (AggregateException error)
            {
                Check.That(error.InnerException is T, "found " + error);
                return;
            }
            Check.That(false, "expected " + typeof(T).Name);
        }

        [Test]
        private static void responses_timeouts_and_cancellations_need_no_thread_of_the_pool()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            using (var source = new CancellationTokenSource())
            {
                WithBusyPool(() =>
                {
                    Task<Response> cancelled = client.CallAsync(new byte[1], Forever, source.Token);
                    Ends<ChannelTimeoutException>(client.CallAsync(new byte[1], TimeSpan.FromMilliseconds(200)));
                    Check.That(!cancelled.IsCompleted, "nobody has cancelled it");
                    source.Cancel();
                    Ends<OperationCanceledException>(cancelled);
                    Task<Response> call = client.CallAsync(new byte[] { 1 }, Scene.Patience);
                    server.Start(Scene.Invert);
                    Check.That(call.Wait(Scene.Patience), "the call does not end");
                    using (Response response = call.Result)
                    {
                        Check.Bytes(new byte[] { 254 }, response.Data);
                    }
                });
            }
        }

        [Test]
        private static void a_thousand_calls_are_under_way_in_a_ring_with_room_for_fewer()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, new BufferConfig(0, 1 << 14)))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = Forever }))
            {
                // If one waited for room, it would wait for ever: nobody answers.
                Task<int>[] calls = Enumerable.Range(0, 1000).Select(number => Inverted(client, number)).ToArray();
                Check.That(!calls.Any(call => call.IsCompleted), "nobody has answered");
                server.Start(Scene.Invert);
                Check.That(Task.WaitAll(calls, Scene.Patience), "the calls do not end");
                Check.That(calls.Select((call, number) => call.Result == ~number).All(right => right), "another's response");
            }
        }

        private static async Task<int> Inverted(DuplexClient client, int number)
        {
            using (Response response = await client.CallAsync(BitConverter.GetBytes(number), Forever))
            {
                return BitConverter.ToInt32(response.ToArray(), 0);
            }
        }

        [Test]
        private static void a_thousand_calls_end_with_their_client()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer.Create(name, new BufferConfig(0, 1 << 14)))
            {
                DuplexClient client = Scene.Client(name);
                Task<Response>[] calls =
                    Enumerable.Range(0, 1000).Select(_ => client.CallAsync(new byte[1], Forever)).ToArray();
                client.Dispose();
                foreach (Task<Response> call in calls)
                {
                    Ends<ObjectDisposedException>(call);
                }
            }
        }

        [Test]
        private static void calls_end_when_their_server_is_killed()
        {
            string name = Channel.New();
            var start = new ProcessStartInfo(Process.GetCurrentProcess().MainModule.FileName);
            if (!start.FileName.EndsWith("ZeroBuffer.Tests", StringComparison.Ordinal))
            {
                start.ArgumentList.Add(Assembly.GetExecutingAssembly().Location);
            }
            start.ArgumentList.Add(Runner.ServeForever);
            start.ArgumentList.Add(name);
            using (Process server = Process.Start(start))
            {
                try
                {
                    using (DuplexClient client = Scene.Client(name))
                    {
                        Task<Response> sent = client.CallAsync(new byte[60000], Forever);
                        Task<Response> queued = client.CallAsync(new byte[60000], Forever);
                        server.Kill();
                        Ends<PeerDiedException>(sent);
                        Ends<PeerDiedException>(queued);
                    }
                }
                finally
                {
                    server.Kill();
                    server.WaitForExit();
                    // The successor of a server that was killed removes its names.
                    Scene.Inverter(name).Dispose();
                }
            }
        }

        [Test]
        private static void a_call_keeps_no_context_of_its_caller()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            using (var source = new CancellationTokenSource())
            {
                Task<Response> call = null;
                WeakReference context = null;
                Scene.Elsewhere(() =>
                {
                    context = new WeakReference(new object());
                    new AsyncLocal<object>().Value = context.Target;
                    call = client.CallAsync(new byte[1], Forever, source.Token);
                });
                Check.Eventually("the context is collected", () =>
                {
                    Scene.Collect();
                    return !context.IsAlive;
                });
                source.Cancel();
                Ends<OperationCanceledException>(call);
            }
        }

        [Test]
        private static void a_handler_can_ask_whether_its_request_is_still_wanted()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            using (var source = new CancellationTokenSource())
            {
                bool before = true;
                bool after = false;
                using (var asked = new ManualResetEventSlim())
                {
                    server.Start(frame =>
                    {
                        before = frame.IsCancelled;
                        asked.Set();
                        after = SpinWait.SpinUntil(() => frame.IsCancelled, Scene.Patience);
                        asked.Reset();
                    });
                    Task<Response> call = client.CallAsync(new byte[1], Forever, source.Token);
                    Check.That(asked.Wait(Scene.Patience), "the handler is not called");
                    source.Cancel();
                    Ends<OperationCanceledException>(call);
                    Check.Eventually("the handler ends", () => !asked.IsSet);
                }
                Check.That(!before && after, "found " + before + ", " + after);
            }
        }
    }
}
