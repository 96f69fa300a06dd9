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
    }
}
