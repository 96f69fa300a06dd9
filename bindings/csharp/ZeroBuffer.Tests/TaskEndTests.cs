using System;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Tests
{
    /// <summary>How async handlers end: with their server, with their client, and with what they throw.</summary>
    internal static class TaskEndTests
    {
        private static readonly TimeSpan Forever = Timeout.InfiniteTimeSpan;

        private static void With(
            Action<InPlaceDuplexServer> start, Action<InPlaceDuplexServer, DuplexClient> test, TimeSpan? stopTimeout = null)
        {
            string name = Channel.New();
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = stopTimeout };
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, config))
            {
                start(server);
                using (DuplexClient client = Scene.Client(name))
                {
                    test(server, client);
                }
            }
        }

        [Test]
        private static void a_handler_that_runs_when_its_server_stops_may_finish()
        {
            using (var begun = new SemaphoreSlim(0))
            {
                With(
                    server => server.Start(async (frame, token) =>
                    {
                        begun.Release();
                        await Task.Delay(100, token);
                        Scene.Invert(frame);
                    }),
                    (server, client) =>
                    {
                        Task<Response> call = client.CallAsync(new byte[] { 1 }, Forever);
                        Check.That(begun.Wait(Scene.Patience), "the handler does not begin");
                        Task stopped = server.StopAsync();
                        Check.That(call.Wait(Scene.Patience), "the call does not end");
                        Check.Bytes(new byte[] { 254 }, call.Result.ToArray());
                        call.Result.Dispose();
                        Check.That(stopped.Wait(Scene.Patience), "it does not stop");
                    },
                    Scene.Patience);
            }
        }

        [Test]
        private static void a_client_that_cancels_while_its_server_stops_is_heard()
        {
            using (var begun = new SemaphoreSlim(0))
            using (var cancelled = new SemaphoreSlim(0))
            {
                With(
                    server => server.Start(async (frame, token) =>
                    {
                        token.Register(() => cancelled.Release());
                        begun.Release();
                        await Task.Delay(Forever, token);
                    }),
                    (server, client) =>
                    {
                        ulong request = client.SendRequest(new byte[1]);
                        Check.That(begun.Wait(Scene.Patience), "the handler does not begin");
                        Task stopped = server.StopAsync();
                        Check.That(!stopped.Wait(50), "the handler has not finished");
                        Check.That(client.Cancel(request), "it is cancelled");
                        Check.That(cancelled.Wait(Scene.Patience), "the token is not cancelled");
                        client.Dispose();
                        Check.That(stopped.Wait(Scene.Patience), "it does not stop");
                    },
                    Forever);
            }
        }

        [Test]
        private static void no_call_fails_while_servers_take_turns()
        {
            string name = Channel.New();
            Service Serve()
            {
                Service service = Service.Create(name, new ServiceConfig());
                service.Start(async (frame, token) =>
                {
                    await Task.Delay(3, token);
                    Scene.Invert(frame);
                });
                return service;
            }
            bool isOver = false;
            Service current = Serve();
            using (DuplexClient client = Scene.Client(name, new ClientConfig { Connections = 2 }))
            {
                async Task<int> Use(byte number)
                {
                    int answered = 0;
                    while (!Volatile.Read(ref isOver))
                    {
                        using (Response response = await client.CallAsync(new[] { number }, Scene.Patience))
                        {
                            Check.Equal((byte)~number, response.Data[0]);
                        }
                        answered++;
                    }
                    return answered;
                }
                Task<int>[] users = Enumerable.Range(0, 8).Select(number => Task.Run(() => Use((byte)number))).ToArray();
                for (int turn = 0; turn < 20; turn++)
                {
                    Thread.Sleep(20);
                    Service next = Serve();
                    current.Stop();
                    current.Dispose();
                    current = next;
                }
                Volatile.Write(ref isOver, true);
                foreach (Task<int> user in users)
                {
                    Check.That(user.Wait(Scene.Patience), "a call does not end");
                    Check.That(user.Result > 0, "nothing was answered");
                }
            }
            current.Dispose();
        }

        [Test]
        private static void a_token_is_cancelled_although_the_pool_is_busy()
        {
            using (var begun = new SemaphoreSlim(0))
            using (var cancelled = new SemaphoreSlim(0))
            {
                With(
                    server => server.Start((frame, token) =>
                    {
                        token.Register(() => cancelled.Release());
                        begun.Release();
                        var ended = new TaskCompletionSource<bool>();
                        token.Register(() => ended.TrySetResult(true));
                        return ended.Task;
                    }),
                    (server, client) =>
                    {
                        ulong request = client.SendRequest(new byte[1]);
                        Check.That(begun.Wait(Scene.Patience), "the handler does not begin");
                        CompletionTests.WithBusyPool(() =>
                        {
                            Check.That(client.Cancel(request), "it is cancelled");
                            Check.That(cancelled.Wait(Scene.Patience), "the token is not cancelled");
                        });
                    });
            }
        }

        [Test]
        private static void what_is_thrown_where_a_token_is_cancelled_is_told()
        {
            using (var begun = new SemaphoreSlim(0))
            using (var told = new SemaphoreSlim(0))
            {
                With(
                    server =>
                    {
                        server.OnError += (sender, arguments) => told.Release();
                        server.Start(async (frame, token) =>
                        {
                            token.Register(() => throw new InvalidOperationException("on purpose"));
                            begun.Release();
                            await Task.Delay(Forever, token);
                        });
                    },
                    (server, client) =>
                    {
                        ulong request = client.SendRequest(new byte[1]);
                        Check.That(begun.Wait(Scene.Patience), "the handler does not begin");
                        Check.That(client.Cancel(request), "it is cancelled");
                        Check.That(told.Wait(Scene.Patience), "nobody is told");
                    });
            }
        }

        private sealed class Silent : Exception
        {
            public override string Message => null;
        }

        private sealed class Spiteful : Exception
        {
            public override string Message => throw new InvalidOperationException("no message");
        }

        [Test]
        private static void an_exception_without_a_message_is_a_failure_all_the_same()
        {
            Action<InPlaceServer, Exception>[] starts =
            {
                (server, error) => server.Start(frame => { throw error; }),
                (server, error) => server.Start(async (frame, token) => { await Task.Yield(); throw error; }),
            };
            foreach (Action<InPlaceServer, Exception> start in starts)
            {
                foreach (Exception error in new Exception[] { new Silent(), new Spiteful() })
                {
                    With(server => start(server, error), (server, client) =>
                    {
                        Task<Response> call = client.CallAsync(new byte[1], Scene.Patience);
                        CompletionTests.Ends<HandlerFailedException>(call);
                        Check.That(call.Exception.InnerException.Message.Contains(error.GetType().Name), "it says what was thrown");
                        Check.That(server.StopAsync().Wait(Scene.Patience), "it does not stop");
                    });
                }
            }
        }

        [Test]
        private static void what_a_handler_has_begun_may_wait_for_its_server_later()
        {
            var answered = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
            Task<bool> later = null;
            With(
                server => server.Start((frame, token) =>
                {
                    later = Task.Run(async () =>
                    {
                        await answered.Task;
                        server.Stop();
                        return server.Completion.IsCompleted;
                    });
                    return Task.CompletedTask;
                }),
                (server, client) =>
                {
                    client.Call(new byte[1], Scene.Patience).Dispose();
                    answered.SetResult(true);
                    Check.That(later.Wait(Scene.Patience), "it does not stop");
                    Check.That(later.Result, "the stop was not waited for");
                });
        }
    }
}
