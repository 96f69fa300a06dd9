using System;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Tests
{
    /// <summary>CallAsync needs no thread of the pool, never blocks, and completes each call, whatever happens.</summary>
    internal static class CompletionTests
    {
        private static readonly TimeSpan Forever = Timeout.InfiniteTimeSpan;

        /// <summary>While all threads of the pool wait.</summary>
        internal static void WithBusyPool(Action test)
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

        internal static void Ends<T>(Task call) where T : Exception
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
        private static void a_response_that_comes_at_once_is_there_when_the_call_returns()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                int atOnce = 0;
                Check.Eventually("responses at once", () =>
                {
                    Task<Response> call = client.CallAsync(new byte[] { 1 }, Scene.Patience);
                    atOnce += call.IsCompleted ? 1 : 0;
                    using (Response response = call.Result)
                    {
                        Check.Bytes(new byte[] { 254 }, response.Data);
                    }
                    return atOnce == 100;
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
            using (var server = new ServerProcess(name))
            using (DuplexClient client = Scene.Client(name))
            {
                Task<Response> sent = client.CallAsync(new byte[60000], Forever);
                Task<Response> queued = client.CallAsync(new byte[60000], Forever);
                server.Kill();
                Ends<PeerDiedException>(sent);
                Ends<PeerDiedException>(queued);
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

        [Test]
        private static void callers_that_block_every_thread_of_the_pool_get_their_responses()
        {
            string name = Channel.New();
            ThreadPool.GetMaxThreads(out int workers, out int others);
            int count = Environment.ProcessorCount;
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            using (var all = new Barrier(count))
            {
                Check.That(ThreadPool.SetMaxThreads(count, others), "the pool has another size");
                try
                {
                    Task<int>[] callers = Enumerable.Range(0, count).Select(number => Task.Run(() =>
                    {
                        all.SignalAndWait();
                        using (Response response = client.CallAsync(BitConverter.GetBytes(number), Forever).Result)
                        {
                            return BitConverter.ToInt32(response.ToArray(), 0);
                        }
                    })).ToArray();
                    Check.That(Task.WaitAll(callers, Scene.Patience), "the calls do not end");
                    Check.That(callers.Select((call, number) => call.Result == ~number).All(right => right), "another's response");
                }
                finally
                {
                    ThreadPool.SetMaxThreads(workers, others);
                }
            }
        }

        [Test]
        private static void calls_under_way_take_no_thread_of_the_pool()
        {
            ThreadPool.GetMaxThreads(out int workers, out int others);
            int count = Environment.ProcessorCount;
            string[] names = Enumerable.Range(0, 2 * count).Select(_ => Channel.New()).ToArray();
            InPlaceDuplexServer[] servers = names.Select(name => InPlaceDuplexServer.Create(name, Scene.Sizes)).ToArray();
            DuplexClient[] clients = names.Select(name => Scene.Client(name)).ToArray();
            Check.That(ThreadPool.SetMaxThreads(count, others), "the pool has another size");
            try
            {
                Task<Response>[] calls = clients.Select(client => client.CallAsync(new byte[1], Forever)).ToArray();
                Check.That(Task.Run(() => { }).Wait(Scene.Patience), "the pool has no thread");
                Check.That(!calls.Any(call => call.IsCompleted), "nobody has answered");
            }
            finally
            {
                ThreadPool.SetMaxThreads(workers, others);
                Array.ForEach(clients, client => client.Dispose());
                Array.ForEach(servers, server => server.Dispose());
            }
        }

        [Test]
        private static void deadlines_and_tokens_hold_behind_another_threads_call()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer.Create(name, new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.Zero }))
            using (var source = new CancellationTokenSource())
            {
                DuplexClient client = Scene.Client(name);
                var other = new Thread(() => Check.Throws<ObjectDisposedException>(() => client.Call(new byte[1], Forever)));
                other.Start();
                Check.Eventually("the other call is under way", () => client.InFlight == 1);
                TimeSpan soon = TimeSpan.FromMilliseconds(50);
                Check.Throws<ChannelTimeoutException>(() => client.Call(new byte[1], soon));
                Ends<ChannelTimeoutException>(client.CallAsync(new byte[1], soon));
                Task<Response> cancelled = client.CallAsync(new byte[1], Forever, source.Token);
                source.Cancel();
                Ends<OperationCanceledException>(cancelled);
                Check.That(client.Cancel(client.SendRequest(new byte[1])), "it is cancelled");
                Check.That(other.IsAlive, "the other call has ended");
                client.Dispose();
                Check.That(other.Join(Scene.Patience), "the other call does not end");
            }
        }

        [Test]
        private static void a_continuation_that_blocks_stops_no_other_call()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            using (var release = new ManualResetEventSlim())
            {
                Task blocked = client.CallAsync(new byte[1], Forever).ContinueWith(
                    call =>
                    {
                        release.Wait();
                        call.Result.Dispose();
                    },
                    TaskContinuationOptions.ExecuteSynchronously);
                // Not before: it would run here.
                server.Start(Scene.Invert);
                Task<Response> next = client.CallAsync(new byte[1], Forever);
                Check.That(next.Wait(Scene.Patience), "the call does not end");
                next.Result.Dispose();
                Check.That(!blocked.IsCompleted, "nobody has released it");
                release.Set();
                Check.That(blocked.Wait(Scene.Patience), "it does not end");
            }
        }

        [Test]
        private static void calls_that_wait_for_room_end_at_their_timeout_and_with_their_token()
        {
            string name = Channel.New();
            var config = new ServerConfig(BufferConfig.ForFrames(1000, 2)) { StopTimeout = TimeSpan.Zero };
            using (InPlaceDuplexServer.Create(name, config))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = Forever }))
            using (var source = new CancellationTokenSource())
            {
                Task<Response>[] sent = { client.CallAsync(new byte[1000], Forever), client.CallAsync(new byte[1000], Forever) };
                Task<Response> late = client.CallAsync(new byte[1000], TimeSpan.FromMilliseconds(50));
                Task<Response> cancelled = client.CallAsync(new byte[1000], Forever, source.Token);
                Ends<ZeroBufferException>(late);
                Check.That(!cancelled.IsCompleted, "nobody has cancelled it");
                source.Cancel();
                Ends<OperationCanceledException>(cancelled);
                Check.That(!sent.Any(call => call.IsCompleted), "nobody has answered");
            }
        }

        [Test]
        private static void callers_that_dispose_of_each_response_always_find_room_in_the_end()
        {
            string name = Channel.New();
            using (Scene.Inverter(name, BufferConfig.ForFrames(1000, 4)))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = TimeSpan.Zero }))
            {
                Task[] callers = Enumerable.Range(0, 10).Select(_ => CallAgainAndAgain(client)).ToArray();
                Check.That(Task.WaitAll(callers, Scene.Patience), "the calls do not end");
            }
        }

        private static async Task CallAgainAndAgain(DuplexClient client)
        {
            for (int round = 0; round < 200; round++)
            {
                (await client.CallAsync(new byte[1000], Forever)).Dispose();
            }
        }

        [Test]
        private static void threads_with_a_request_buffer_each_all_send_theirs()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = Forever }))
            {
                Task[] senders = Enumerable.Range(0, 4).Select(_ => Task.Factory.StartNew(
                    () =>
                    {
                        for (int round = 0; round < 500; round++)
                        {
                            using (RequestBuffer buffer = client.AcquireRequestBuffer(8))
                            {
                                client.ReceiveResponseFor(buffer.Commit(), Forever).Dispose();
                            }
                        }
                    },
                    TaskCreationOptions.LongRunning)).ToArray();
                Check.That(Task.WaitAll(senders, Scene.Patience), "a thread does not end");
            }
        }

        [Test]
        private static void the_error_of_a_call_says_whether_it_was_started()
        {
            string name = Channel.New();
            using (var begun = new ManualResetEventSlim())
            using (var release = new ManualResetEventSlim())
            {
                var server = InPlaceDuplexServer.Create(name, new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.Zero });
                server.Start(frame =>
                {
                    begun.Set();
                    release.Wait();
                });
                using (DuplexClient client = Scene.Client(name))
                {
                    Task<Response> taken = client.CallAsync(new byte[1], Forever);
                    Check.That(begun.Wait(Scene.Patience), "the handler does not begin");
                    Task<Response> waiting = client.CallAsync(new byte[1], Forever);
                    server.Dispose();
                    release.Set();
                    State(RequestState.InDoubt, 1, taken);
                    State(RequestState.NotStarted, 2, waiting);
                    // It was never sent.
                    State(RequestState.NotStarted, 0, client.CallAsync(new byte[1], Forever));
                    var error = Check.Throws<PeerClosedException>(() => client.Call(new byte[1], Forever));
                    Check.Equal(RequestState.NotStarted, error.Request.State);
                }
            }
        }

        private static void State(RequestState expected, ulong sequence, Task<Response> call)
        {
            Ends<PeerClosedException>(call);
            LostRequest request = ((PeerClosedException)call.Exception.InnerException).Request;
            Check.Equal(expected, request.State);
            Check.Equal(sequence, request.Sequence);
        }
    }
}
