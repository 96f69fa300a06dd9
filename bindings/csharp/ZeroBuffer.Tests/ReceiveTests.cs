using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Tests
{
    /// <summary>Servers without a handler.</summary>
    internal static class ReceiveTests
    {
        private static readonly TimeSpan Forever = Timeout.InfiniteTimeSpan;

        private static void With(Action<InPlaceServer, DuplexClient> test)
        {
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.FromMilliseconds(50) };
            Func<string, InPlaceServer>[] kinds =
            {
                name => InPlaceDuplexServer.Create(name, config),
                name => Service.Create(name, new ServiceConfig { StopTimeout = config.StopTimeout }),
            };
            foreach (Func<string, InPlaceServer> kind in kinds)
            {
                string name = Channel.New();
                using (InPlaceServer server = kind(name))
                using (DuplexClient client = Scene.Client(name))
                {
                    test(server, client);
                }
            }
        }

        private static void Answer(Request request)
        {
            Scene.Invert(request);
            request.Respond();
        }

        private static Request Got(Task<Request> receiving)
        {
            Check.That(receiving.Wait(Scene.Patience), "no request comes");
            return receiving.Result;
        }

        [Test]
        private static void a_request_that_may_come_is_tried_for()
        {
            With((server, client) =>
            {
                Check.That(!server.TryReceive(TimeSpan.Zero, out Request none) && none == null, "there is none");
                var late = Check.Throws<ChannelTimeoutException>(() => server.Receive(TimeSpan.FromMilliseconds(10)));
                Check.Equal(TimeSpan.FromMilliseconds(10), late.Waited);
                ulong sequence = client.SendRequest(new byte[] { 1 });
                Check.That(server.TryReceive(Scene.Patience, out Request request), "no request comes");
                Answer(request);
                client.ReceiveResponseFor(sequence, Scene.Patience).Dispose();
                server.Stop();
                Check.Throws<ClosedException>(() => server.TryReceive(TimeSpan.Zero, out _));
            });
        }

        [Test]
        private static void a_timeout_holds_behind_another_thread_that_receives()
        {
            With((server, client) =>
            {
                Exception error = null;
                var other = new Thread(() => error = Check.Throws<Exception>(() => server.Receive(Forever)));
                other.Start();
                Thread.Sleep(50);
                Check.That(!server.TryReceive(TimeSpan.FromMilliseconds(20), out _), "there is no request");
                Check.Throws<ChannelTimeoutException>(() => server.Receive(TimeSpan.Zero));
                Check.That(other.IsAlive, "the other thread has ended");
                server.Stop();
                Check.That(other.Join(Scene.Patience), "the other thread waits on");
                Check.That(error is ClosedException, "found " + error);
            });
        }

        [Test]
        private static void requests_are_awaited_and_answered_in_any_order()
        {
            With((server, client) =>
            {
                Task<Request>[] receiving = { server.ReceiveAsync(), server.ReceiveAsync() };
                Check.That(!receiving.Any(one => one.IsCompleted), "nobody has asked");
                ulong[] sequences = { client.SendRequest(new byte[] { 1 }), client.SendRequest(new byte[] { 2 }) };
                Answer(Got(receiving[1]));
                Answer(Got(receiving[0]));
                for (int number = 0; number < 2; number++)
                {
                    using (Response response = client.ReceiveResponseFor(sequences[number], Scene.Patience))
                    {
                        Check.Bytes(new[] { (byte)~(number + 1) }, response.Data);
                    }
                }
                // One that receives without a task takes its turn with the others.
                Check.That(!server.TryReceive(TimeSpan.FromMilliseconds(10), out _), "there is none");
                ulong third = client.SendRequest(new byte[1]);
                Answer(server.Receive(Scene.Patience));
                client.ReceiveResponseFor(third, Scene.Patience).Dispose();
                Check.Throws<InvalidStateException>(() => server.Start(Scene.Invert));
            });
        }

        [Test]
        private static void a_wait_that_ends_a_little_early_loses_no_request()
        {
            With((server, client) =>
            {
                client.SendRequest(new byte[1]);
                Answer(Got(server.ReceiveAsync()));
                client.ReceiveResponse(Scene.Patience).Dispose();
                for (int round = 0; round < 300; round++)
                {
                    Check.That(!server.TryReceive(TimeSpan.FromMilliseconds(2), out _), "there is none");
                    ulong sequence = client.SendRequest(new byte[1]);
                    Answer(server.Receive(Scene.Patience));
                    client.ReceiveResponseFor(sequence, Scene.Patience).Dispose();
                }
            });
        }

        [Test]
        private static void a_request_that_nobody_waits_for_is_not_taken()
        {
            With((server, client) =>
            {
                ulong first = client.SendRequest(new byte[1]);
                ulong second = client.SendRequest(new byte[1]);
                Answer(Got(server.ReceiveAsync()));
                client.ReceiveResponseFor(first, Scene.Patience).Dispose();
                server.Stop();
                var lost = Check.Throws<PeerClosedException>(() => client.ReceiveResponseFor(second, Scene.Patience));
                Check.Equal(RequestState.NotStarted, lost.Request.State);
            });
        }

        [Test]
        private static void a_request_that_comes_to_a_cancelled_wait_is_the_next_ones()
        {
            With((server, client) =>
            {
                using (var source = new CancellationTokenSource())
                {
                    Task<Request> receiving = server.ReceiveAsync(source.Token);
                    source.Cancel();
                    CompletionTests.Ends<OperationCanceledException>(receiving);
                    CompletionTests.Ends<OperationCanceledException>(server.ReceiveAsync(source.Token));
                    ulong sequence = client.SendRequest(new byte[1]);
                    Answer(Got(server.ReceiveAsync()));
                    client.ReceiveResponseFor(sequence, Scene.Patience).Dispose();
                }
            });
        }

        [Test]
        private static void a_request_that_comes_after_a_wait_has_ended_is_not_taken()
        {
            With((server, client) =>
            {
                using (var source = new CancellationTokenSource())
                {
                    Task<Request> receiving = server.ReceiveAsync(source.Token);
                    source.Cancel();
                    CompletionTests.Ends<OperationCanceledException>(receiving);
                    CompletionTests.Ends<OperationCanceledException>(server.ReceiveAsync(source.Token));
                    Check.That(!server.TryReceive(TimeSpan.FromMilliseconds(5), out _), "there is none");
                    ulong sequence = client.SendRequest(new byte[1]);
                    // For a thread that would take it.
                    Thread.Sleep(50);
                    server.Stop();
                    var lost = Check.Throws<PeerClosedException>(() => client.ReceiveResponseFor(sequence, Scene.Patience));
                    Check.Equal(RequestState.NotStarted, lost.Request.State);
                }
            });
        }

        [Test]
        private static void a_request_that_is_there_needs_no_time_to_be_received()
        {
            With((server, client) =>
            {
                using (var source = new CancellationTokenSource())
                {
                    source.Cancel();
                    CompletionTests.Ends<OperationCanceledException>(server.ReceiveAsync(source.Token));
                    ulong sequence = client.SendRequest(new byte[1]);
                    Check.That(server.TryReceive(TimeSpan.Zero, out Request request), "there is one");
                    Answer(request);
                    client.ReceiveResponseFor(sequence, Scene.Patience).Dispose();
                }
            });
        }

        [Test]
        private static void no_request_is_lost_between_waits_that_are_cancelled()
        {
            With((server, client) =>
            {
                const int Calls = 100;
                Task<int> serving = Task.Run(async () =>
                {
                    int taken = 0;
                    while (taken < Calls)
                    {
                        using (var source = new CancellationTokenSource())
                        {
                            source.CancelAfter(1);
                            try
                            {
                                Answer(await server.ReceiveAsync(source.Token));
                                taken++;
                            }
                            catch (OperationCanceledException)
                            {
                                // The next wait gets it.
                            }
                        }
                    }
                    return taken;
                });
                for (int number = 0; number < Calls; number++)
                {
                    client.Call(new byte[1], Scene.Patience).Dispose();
                    Thread.Sleep(number % 3);
                }
                Check.That(serving.Wait(Scene.Patience), "requests are missing");
            });
        }

        [Test]
        private static void a_stop_ends_the_wait_for_requests()
        {
            foreach (bool dispose in new[] { false, true })
            {
                With((server, client) =>
                {
                    Task<Request> receiving = server.ReceiveAsync();
                    (dispose ? (Action)server.Dispose : server.Stop)();
                    if (dispose)
                    {
                        CompletionTests.Ends<ObjectDisposedException>(receiving);
                        Check.Throws<ObjectDisposedException>(() => server.ReceiveAsync());
                    }
                    else
                    {
                        CompletionTests.Ends<ClosedException>(receiving);
                        CompletionTests.Ends<ClosedException>(server.ReceiveAsync());
                    }
                });
            }
        }

        [Test]
        private static void all_requests_come_one_after_the_other_until_the_server_stops()
        {
            With((server, client) =>
            {
                Task<int> serving = ServeAll(server);
                for (byte number = 0; number < 5; number++)
                {
                    using (Response response = client.Call(new[] { number }, Scene.Patience))
                    {
                        Check.Bytes(new[] { (byte)~number }, response.Data);
                    }
                }
                server.Stop();
                Check.That(serving.Wait(Scene.Patience), "it does not end");
                Check.Equal(5, serving.Result);
            });
        }

        private static async Task<int> ServeAll(InPlaceServer server)
        {
            int count = 0;
            await foreach (Request request in server.ReceiveAllAsync())
            {
                Answer(request);
                count++;
            }
            return count;
        }

        [Test]
        private static void a_loop_over_requests_ends_with_its_token()
        {
            With((server, client) =>
            {
                using (var source = new CancellationTokenSource())
                {
                    IAsyncEnumerator<Request> all = server.ReceiveAllAsync(source.Token).GetAsyncEnumerator();
                    Task<bool> next = all.MoveNextAsync().AsTask();
                    source.Cancel();
                    CompletionTests.Ends<OperationCanceledException>(next);
                }
            });
        }

        [Test]
        private static void waiting_for_requests_needs_no_thread_of_the_pool()
        {
            With((server, client) => CompletionTests.WithBusyPool(() =>
            {
                Task<Request> receiving = server.ReceiveAsync();
                ulong sequence = client.SendRequest(new byte[] { 1 });
                Answer(Got(receiving));
                client.ReceiveResponseFor(sequence, Scene.Patience).Dispose();
                Check.That(server.StopAsync().Wait(Scene.Patience), "the server does not stop");
            }));
        }

        [Test]
        private static void requests_of_many_clients_go_to_many_receivers()
        {
            With((server, client) =>
            {
                Task<int>[] serving = { ServeAll(server), ServeAll(server), ServeAll(server) };
                Task<Response>[] calls = Enumerable.Range(0, 200)
                    .Select(number => client.CallAsync(new[] { (byte)number }, Forever)).ToArray();
                for (int number = 0; number < calls.Length; number++)
                {
                    Check.That(calls[number].Wait(Scene.Patience), "a call does not end");
                    Check.Bytes(new[] { (byte)~number }, calls[number].Result.ToArray());
                    calls[number].Result.Dispose();
                }
                server.Stop();
                Check.That(Task.WaitAll(serving, Scene.Patience), "it does not end");
                Check.Equal(200, serving.Sum(one => one.Result));
            });
        }
    }
}
