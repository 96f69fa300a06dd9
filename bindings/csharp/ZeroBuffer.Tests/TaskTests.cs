using Microsoft.Extensions.Logging;
using System;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Tests
{
    /// <summary>Servers whose handler is async.</summary>
    internal static class TaskTests
    {
        private static readonly TimeSpan Forever = Timeout.InfiniteTimeSpan;

        private static void With(Func<Frame, CancellationToken, Task> handler, Action<InPlaceDuplexServer, DuplexClient> test)
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            {
                server.Start(handler);
                Check.That(server.IsRunning, "it runs");
                using (DuplexClient client = Scene.Client(name))
                {
                    test(server, client);
                }
                Check.Throws<InvalidStateException>(() => server.Receive(TimeSpan.Zero));
                Check.Throws<InvalidStateException>(() => server.Start(handler));
                Check.Throws<InvalidStateException>(() => server.Start(Scene.Invert));
                server.Stop();
                Check.That(!server.IsRunning, "it has stopped");
            }
        }

        /// <summary>Ends when the token is cancelled.</summary>
        private static Task UntilCancelled(CancellationToken token)
        {
            var source = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
            token.Register(() => source.TrySetResult(true));
            return source.Task;
        }

        [Test]
        private static void a_request_is_answered_while_another_one_waits()
        {
            var second = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
            With(
                async (frame, _) =>
                {
                    if (frame.Length == 1)
                    {
                        await second.Task;
                    }
                    await Task.Yield();
                    Scene.Invert(frame);
                },
                (server, client) =>
                {
                    ulong first = client.SendRequest(new byte[] { 1 });
                    client.Call(new byte[2], Scene.Patience).Dispose();
                    second.SetResult(true);
                    using (Response response = client.ReceiveResponseFor(first, Scene.Patience))
                    {
                        Check.Bytes(new byte[] { 254 }, response.Data);
                    }
                });
        }

        [Test]
        private static void what_a_task_fails_with_reaches_the_client()
        {
            With(
                async (frame, _) =>
                {
                    await Task.Yield();
                    throw new InvalidOperationException("no such thing");
                },
                (server, client) =>
                {
                    var failed = Check.Throws<HandlerFailedException>(() => client.Call(new byte[1], Scene.Patience));
                    Check.That(failed.Message.Contains("no such thing"), failed.Message);
                });
        }

        [Test]
        private static void the_token_is_cancelled_with_the_request_and_with_its_client()
        {
            using (var begun = new SemaphoreSlim(0))
            using (var cancelled = new SemaphoreSlim(0))
            {
                With(
                    async (frame, token) =>
                    {
                        begun.Release();
                        await UntilCancelled(token);
                        cancelled.Release();
                    },
                    (server, client) =>
                    {
                        ulong request = client.SendRequest(new byte[1]);
                        Check.That(begun.Wait(Scene.Patience), "the handler does not begin");
                        Check.That(client.Cancel(request), "it is cancelled");
                        Check.That(cancelled.Wait(Scene.Patience), "the token is not cancelled");
                        client.SendRequest(new byte[1]);
                        Check.That(begun.Wait(Scene.Patience), "the handler does not begin");
                        client.Dispose();
                        Check.That(cancelled.Wait(Scene.Patience), "the token is not cancelled");
                    });
            }
        }

        [Test]
        private static void a_server_that_stops_cancels_the_tokens_and_waits_for_the_tasks()
        {
            using (var begun = new SemaphoreSlim(0))
            {
                bool ended = false;
                With(
                    async (frame, token) =>
                    {
                        begun.Release();
                        await UntilCancelled(token);
                        Scene.Invert(frame);
                        Volatile.Write(ref ended, true);
                    },
                    (server, client) =>
                    {
                        Task<Response> call = client.CallAsync(new byte[] { 1 }, Forever);
                        Check.That(begun.Wait(Scene.Patience), "the handler does not begin");
                        server.Stop();
                        Check.That(Volatile.Read(ref ended), "the task was not waited for");
                        Check.That(call.Wait(Scene.Patience), "the call does not end");
                        Check.Bytes(new byte[] { 254 }, call.Result.ToArray());
                        call.Result.Dispose();
                    });
            }
        }

        /// <summary>Each way to stop a server.</summary>
        private static readonly Action<DuplexServer>[] Stops =
        {
            server => server.Stop(),
            server => server.Dispose(),
            server => Check.That(server.StopAsync().Wait(Scene.Patience), "it does not stop"),
            server => Check.That(server.DisposeAsync().AsTask().Wait(Scene.Patience), "it does not end"),
        };

        [Test]
        private static void a_stop_ends_although_a_handler_ignores_its_token()
        {
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.FromMilliseconds(50) };
            foreach (Action<DuplexServer> stop in Stops)
            {
                string name = Channel.New();
                var release = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
                using (var begun = new SemaphoreSlim(0))
                using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, config))
                using (DuplexClient client = Scene.Client(name))
                {
                    server.Start(async (frame, _) =>
                    {
                        begun.Release();
                        await release.Task;
                    });
                    Task<Response> call = client.CallAsync(new byte[1], Forever);
                    Check.That(begun.Wait(Scene.Patience), "the handler does not begin");
                    stop(server);
                    CompletionTests.Ends<PeerClosedException>(call);
                    Check.That(server.Completion.IsCompletedSuccessfully, "it has not ended");
                    release.SetResult(true);
                }
            }
        }

        [Test]
        private static void a_handler_that_stops_its_own_server_does_not_wait_for_itself()
        {
            // If it did, it would wait for ever.
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = Forever };
            foreach (Action<DuplexServer> stop in Stops)
            {
                foreach (bool isAsync in new[] { false, true })
                {
                    string name = Channel.New();
                    InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, config);
                    using (DuplexClient client = Scene.Client(name))
                    {
                        if (isAsync)
                        {
                            server.Start(async (frame, _) =>
                            {
                                await Task.Yield();
                                stop(server);
                                Scene.Invert(frame);
                            });
                        }
                        else
                        {
                            server.Start(frame =>
                            {
                                stop(server);
                                Scene.Invert(frame);
                            });
                        }
                        using (Response response = client.Call(new byte[] { 1 }, Scene.Patience))
                        {
                            Check.Bytes(new byte[] { 254 }, response.Data);
                        }
                        Check.That(server.Completion.Wait(Scene.Patience), "it does not end");
                    }
                    server.Dispose();
                }
            }
        }

        [Test]
        private static void who_is_told_of_an_error_may_stop_the_server()
        {
            // If a handler waited for itself, it would wait for ever.
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = Forever, Workers = 2 };
            foreach (Action<DuplexServer> stop in Stops)
            {
                string name = Channel.New();
                using (var both = new Barrier(2))
                using (DuplexServer server = Failing(name, config, both))
                using (DuplexClient client = Scene.Client(name))
                {
                    server.OnError += (sender, arguments) => stop(server);
                    Task<Response>[] calls = { client.CallAsync(new byte[1], Forever), client.CallAsync(new byte[1], Forever) };
                    foreach (Task<Response> call in calls)
                    {
                        CompletionTests.Ends<HandlerFailedException>(call);
                    }
                    Check.That(server.Completion.Wait(Scene.Patience), "it does not end");
                }
            }
        }

        [Test]
        private static void who_is_told_of_an_error_may_stop_a_server_that_is_stopping()
        {
            string name = Channel.New();
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = Forever };
            using (var both = new Barrier(2))
            using (DuplexServer server = Failing(name, config, both))
            using (DuplexClient client = Scene.Client(name))
            {
                server.OnError += (sender, arguments) => server.Stop();
                Task<Response> call = client.CallAsync(new byte[1], Forever);
                Check.Eventually("the handler begins", () => both.ParticipantsRemaining == 1);
                Task stopped = server.StopAsync();
                Check.Eventually("it is stopping", () => !server.IsRunning);
                both.SignalAndWait();
                CompletionTests.Ends<HandlerFailedException>(call);
                Check.That(stopped.Wait(Scene.Patience), "it does not end");
            }
        }

        /// <summary>Its handler fails when two threads have come to the barrier.</summary>
        private static DuplexServer Failing(string name, ServerConfig config, Barrier both)
        {
            InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, config);
            server.Start(frame =>
            {
                both.SignalAndWait();
                if (frame.Length > 0)
                {
                    throw new Exception("on purpose");
                }
            });
            return server;
        }

        [Test]
        private static void stopping_a_server_asynchronously_ends_its_wait_with_its_token()
        {
            string name = Channel.New();
            using (var begun = new SemaphoreSlim(0))
            using (var release = new ManualResetEventSlim())
            using (var source = new CancellationTokenSource())
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            {
                server.Start(frame =>
                {
                    begun.Release();
                    release.Wait();
                });
                Task<Response> call = client.CallAsync(new byte[1], Forever);
                Check.That(begun.Wait(Scene.Patience), "the handler does not begin");
                Task stopping = server.StopAsync(source.Token);
                Check.That(!stopping.IsCompleted && !server.Completion.IsCompleted, "the handler has not returned");
                source.Cancel();
                CompletionTests.Ends<OperationCanceledException>(stopping);
                release.Set();
                Check.That(server.Completion.Wait(Scene.Patience), "it does not stop");
                call.Wait();
                call.Result.Dispose();
            }
        }

        [Test]
        private static void a_server_says_why_it_had_to_stop()
        {
            foreach (bool isAsync in new[] { false, true })
            {
                string name = Channel.New();
                var log = new Logbook();
                var config = new ServerConfig(Scene.Sizes) { Logger = log };
                using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, config))
                {
                    if (isAsync)
                    {
                        server.Start((frame, _) => Task.CompletedTask);
                    }
                    else
                    {
                        server.Start(Scene.Invert);
                    }
                    Check.That(!server.Completion.IsCompleted, "it serves");
                    foreach (string path in Channel.Objects())
                    {
                        System.IO.File.Delete(path);
                    }
                    using (Scene.Inverter(name))
                    {
                        CompletionTests.Ends<AlreadyRunningException>(server.Completion);
                        Check.That(!server.IsRunning, "it has stopped");
                        Check.Equal(
                            "The server of channel " + name + " had to stop " + nameof(AlreadyRunningException),
                            string.Join(", ", log.At(LogLevel.Error)));
                        Check.Throws<AlreadyRunningException>(server.Stop);
                        CompletionTests.Ends<AlreadyRunningException>(server.StopAsync());
                        server.Dispose();
                    }
                }
            }
        }

        [Test]
        private static void handlers_run_without_the_context_of_the_start()
        {
            string name = Channel.New();
            var local = new AsyncLocal<string>();
            string found = "";
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            {
                local.Value = "of the start";
                server.Start((frame, _) =>
                {
                    found = local.Value;
                    return Task.CompletedTask;
                });
                local.Value = null;
                client.Call(new byte[1], Scene.Patience).Dispose();
            }
            Check.That(found == null, "found " + found);
        }
    }
}
