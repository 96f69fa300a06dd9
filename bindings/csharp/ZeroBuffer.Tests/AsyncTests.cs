using System;
using System.Diagnostics;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Tests
{
    /// <summary>CallAsync.</summary>
    internal static class AsyncTests
    {
        /// <summary>Each on a channel in place and on two buffers.</summary>
        private static void WithEach(Action<Frame> handler, Action<DuplexClient> test)
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            {
                server.Start(handler);
                using (DuplexClient client = Scene.Client(name))
                {
                    test(client);
                }
            }
            string two = Channel.New();
            using (MutableDuplexServer server = MutableDuplexServer.Create(two, Scene.Sizes))
            {
                server.Start(handler);
                using (DuplexClient client = Scene.Client(two))
                {
                    test(client);
                }
            }
        }

        private static T Result<T>(Task<T> task)
        {
            try
            {
                Check.That(task.Wait(Scene.Patience), "the task does not end");
                return task.Result;
            }
            catch (AggregateException error)
            {
                throw error.InnerException;
            }
        }

        [Test]
        private static void calls_are_awaited()
        {
            WithEach(Scene.Invert, client =>
            {
                Check.Equal(3 * 254, Result(AddUp(client)));
            });
        }

        private static async Task<int> AddUp(DuplexClient client)
        {
            int sum = 0;
            for (int round = 0; round < 3; round++)
            {
                using (Response response = await client.CallAsync(new byte[] { 1 }, Scene.Patience))
                {
                    sum += response.ToArray()[0];
                }
            }
            return sum;
        }

        [Test]
        private static void many_calls_are_under_way_at_once()
        {
            WithEach(Scene.Invert, client =>
            {
                var data = new byte[1];
                Task<Response>[] calls = Enumerable.Range(0, 100).Select(number =>
                {
                    data[0] = (byte)number;
                    // Copied before it returns.
                    return client.CallAsync(data, Scene.Patience);
                }).ToArray();
                for (int number = 0; number < calls.Length; number++)
                {
                    using (Response response = Result(calls[number]))
                    {
                        Check.Bytes(new[] { (byte)~number }, response.Data);
                    }
                }
            });
        }

        [Test]
        private static void a_cancelled_call_ends_at_once_and_the_client_goes_on()
        {
            using (var release = new ManualResetEventSlim())
            {
                WithEach(frame => { if (frame.Length == 2) { release.Wait(); } }, client =>
                {
                    release.Reset();
                    using (var source = new CancellationTokenSource())
                    {
                        Task<Response> call = client.CallAsync(new byte[2], Timeout.InfiniteTimeSpan, source.Token);
                        Thread.Sleep(20);
                        Check.That(!call.IsCompleted, "there is no answer yet");
                        source.Cancel();
                        Check.Throws<TaskCanceledException>(() => Result(call));
                        release.Set();
                        client.Call(new byte[1], Scene.Patience).Dispose();
                        Result(client.CallAsync(new byte[3], Scene.Patience)).Dispose();
                    }
                });
            }
        }

        [Test]
        private static void cancelled_calls_whose_answers_were_there_keep_no_room()
        {
            string name = Channel.New();
            using (var release = new ManualResetEventSlim())
            using (InPlaceDuplexServer server =
                InPlaceDuplexServer.Create(name, new ServerConfig(Scene.Sizes) { Workers = 2 }))
            {
                server.Start(frame => { if (frame.Length == 2) { release.Wait(); } });
                using (DuplexClient client = Scene.Client(name))
                {
                    Task<Response> slow = client.CallAsync(new byte[2], Scene.Patience);
                    Thread.Sleep(10);
                    for (int round = 0; round < 100; round++)
                    {
                        CancelOnceAnswered(client);
                    }
                    release.Set();
                    Result(slow).Dispose();
                    // Sending takes back what was released.
                    client.Call(new byte[1], Scene.Patience).Dispose();
                    Check.Equal(1, client.InFlight);
                }
            }
        }

        private static void CancelOnceAnswered(DuplexClient client)
        {
            using (var source = new CancellationTokenSource())
            {
                Task<Response> call = client.CallAsync(new byte[1], Timeout.InfiniteTimeSpan, source.Token);
                Thread.SpinWait(20000);
                source.Cancel();
                try
                {
                    Result(call).Dispose();
                }
                catch (TaskCanceledException)
                {
                }
            }
        }

        [Test]
        private static void a_token_that_is_cancelled_already_sends_nothing()
        {
            int count = 0;
            WithEach(frame => Interlocked.Increment(ref count), client =>
            {
                Task<Response> call = client.CallAsync(new byte[1], Scene.Patience, new CancellationToken(true));
                Check.That(call.IsCanceled, "it is cancelled");
            });
            Check.Equal(0, count);
        }

        [Test]
        private static void a_call_that_is_late_fails_with_a_timeout()
        {
            using (var release = new ManualResetEventSlim())
            {
                WithEach(frame => release.Wait(), client =>
                {
                    release.Reset();
                    var late = Check.Throws<ChannelTimeoutException>(() => Result(client.CallAsync(new byte[1], TimeSpan.FromMilliseconds(30))));
                    Check.Equal(TimeSpan.FromMilliseconds(30), late.Waited);
                    release.Set();
                });
            }
        }

        [Test]
        private static void failures_come_through_the_task()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                Check.Throws<HandlerFailedException>(() => Result(client.CallAsync(new byte[0], Scene.Patience)));
                Check.Throws<TooLargeException>(() => Result(client.CallAsync(new byte[1 << 20], Scene.Patience)));
                server.Stop();
                Check.Throws<PeerClosedException>(() => Result(client.CallAsync(new byte[1], Scene.Patience)));
            }
        }

        [Test]
        private static void calls_under_way_end_with_their_client()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer.Create(name, Scene.Sizes))
            {
                DuplexClient client = Scene.Client(name);
                Task<Response> call = client.CallAsync(new byte[1], Timeout.InfiniteTimeSpan);
                client.Dispose();
                Check.Throws<ObjectDisposedException>(() => Result(call));
            }
        }

        [Test]
        private static void calls_under_way_are_sent_again_if_the_client_is_to_and_nothing_else_is()
        {
            string name = Channel.New();
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.FromMilliseconds(50) };
            InPlaceDuplexServer former = InPlaceDuplexServer.Create(name, config);
            using (DuplexClient client = Scene.Client(name, new ClientConfig { ResendNotStarted = true }))
            {
                Task<Response> call = client.CallAsync(new byte[] { 1 }, Timeout.InfiniteTimeSpan);
                ulong sent = client.SendRequest(new byte[1]);
                former.Dispose();
                using (Scene.Inverter(name))
                {
                    using (Response response = Result(call))
                    {
                        Check.Bytes(new byte[] { 254 }, response.Data);
                    }
                    var lost = Check.Throws<PeerClosedException>(() => client.ReceiveResponseFor(sent, Scene.Patience));
                    Check.Equal(RequestState.NotStarted, lost.Request.State);
                }
            }
        }

        [Test]
        private static void a_connection_that_many_threads_use_and_that_works_keeps_its_calls()
        {
            string name = Channel.New();
            using (var letGo = new ManualResetEvent(false))
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            {
                server.Start(frame =>
                {
                    letGo.WaitOne(Scene.Patience);
                    Scene.Invert(frame);
                });
                using (DuplexClient client = Scene.Client(name))
                {
                    Task<Response>[] calls = new byte[] { 1, 2 }
                        .Select(value => client.CallAsync(new[] { value }, Scene.Patience)).ToArray();
                    Reconnected report = client.Reconnect(Scene.Patience);
                    letGo.Set();
                    Check.Equal(0, report.Resent.Count + report.Lost.Count);
                    foreach (byte value in new byte[] { 1, 2 })
                    {
                        using (Response response = Result(calls[value - 1]))
                        {
                            Check.Bytes(new[] { (byte)~value }, response.ToArray());
                        }
                    }
                }
            }
        }

        [Test]
        private static void calls_of_many_threads_end_with_the_server_that_has_ended()
        {
            string name = Channel.New();
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.FromMilliseconds(50) };
            InPlaceDuplexServer former = InPlaceDuplexServer.Create(name, config);
            using (DuplexClient client = Scene.Client(name))
            {
                Task<Response>[] calls = Enumerable.Range(0, 2)
                    .Select(_ => client.CallAsync(new byte[1], Timeout.InfiniteTimeSpan)).ToArray();
                former.Dispose();
                using (Scene.Inverter(name))
                {
                    client.Reconnect(Scene.Patience);
                    foreach (Task<Response> call in calls)
                    {
                        Check.Throws<PeerClosedException>(() => Result(call));
                    }
                    Result(client.CallAsync(new byte[1], Scene.Patience)).Dispose();
                }
            }
        }

        [Test]
        private static void a_reconnection_of_many_threads_keeps_no_call_from_beginning_and_none_from_ending()
        {
            string name = Channel.New();
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.FromMilliseconds(50) };
            InPlaceDuplexServer former = InPlaceDuplexServer.Create(name, config);
            var many = new ClientConfig { SendTimeout = TimeSpan.FromMilliseconds(50) };
            using (DuplexClient client = Scene.Client(name, many))
            using (var begun = new ManualResetEventSlim())
            using (var source = new CancellationTokenSource())
            {
                Task<Response> call = client.CallAsync(new byte[1], Timeout.InfiniteTimeSpan, source.Token);
                var reconnected = new Thread(() =>
                {
                    begun.Set();
                    client.Reconnect(Scene.Patience);
                });
                former.Dispose();
                reconnected.Start();
                Check.That(begun.Wait(Scene.Patience), "the thread does not start");
                Thread.Sleep(100);
                source.Cancel();
                Check.Throws<Exception>(() => Result(call).Dispose());
                Check.Throws<Exception>(() => Result(client.CallAsync(new byte[1], Scene.Patience)).Dispose());
                Check.That(reconnected.IsAlive, "the calls have waited for the reconnection");
                using (Scene.Inverter(name))
                {
                    reconnected.Join();
                    Result(client.CallAsync(new byte[1], Scene.Patience)).Dispose();
                }
            }
        }

        [Test]
        private static void no_call_gets_the_answer_to_another_while_the_client_reconnects()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                CallWhile(client, () =>
                {
                    for (int round = 0; round < 100; round++)
                    {
                        client.Reconnect(Scene.Patience);
                        Thread.SpinWait(2000);
                    }
                });
            }
        }

        /// <summary>Calls on two other threads, all the time that <paramref name="action"/> takes.</summary>
        private static void CallWhile(DuplexClient client, Action action)
        {
            bool done = false;
            Task[] callers = Enumerable.Range(0, 2).Select(caller => Task.Factory.StartNew(() =>
            {
                for (int number = caller; !Volatile.Read(ref done); number += 2)
                {
                    CallUnlessReconnected(client, BitConverter.GetBytes(number));
                }
            }, TaskCreationOptions.LongRunning)).ToArray();
            try
            {
                action();
            }
            finally
            {
                Volatile.Write(ref done, true);
            }
            Check.That(Task.WaitAll(callers, Scene.Patience), "a call does not end");
        }

        private static void CallUnlessReconnected(DuplexClient client, byte[] data)
        {
            try
            {
                using (Response response = Result(client.CallAsync(data, Scene.Patience)))
                {
                    Check.Bytes(data.Select(value => (byte)~value).ToArray(), response.ToArray());
                }
            }
            catch (InvalidStateException)
            {
                // It has reconnected.
            }
        }
    }
}
