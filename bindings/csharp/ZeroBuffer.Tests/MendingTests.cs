using Microsoft.Extensions.Logging;
using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Tests
{
    /// <summary>Clients that mend themselves: <see cref="ClientConfig.Connections"/>.</summary>
    internal static class MendingTests
    {
        private static readonly ClientConfig Mending = new ClientConfig { Connections = 2 };

        private static Task OnThread(Action action) => Task.Factory.StartNew(action, TaskCreationOptions.LongRunning);

        private static void CheckInverted(byte sent, Response response)
        {
            using (response)
            {
                Check.Bytes(new[] { (byte)~sent }, response.Data);
            }
        }

        [Test]
        private static void what_a_killed_server_had_not_begun_is_sent_again_and_what_it_had_begun_is_in_doubt()
        {
            string name = Channel.New();
            using (var killed = new ServerProcess(name))
            using (DuplexClient client = Scene.Client(name, Mending))
            {
                Task begun = OnThread(() => client.Call(new byte[ServerProcess.NeverAnswered], Scene.Patience).Dispose());
                killed.AwaitTaken();
                // Behind it, on several threads and on none.
                List<Task> behind = Enumerable.Range(0, 4).Select(number => OnThread(() =>
                    CheckInverted((byte)number, client.Call(new[] { (byte)number }, Scene.Patience)))).ToList();
                behind.AddRange(Enumerable.Range(4, 4).Select(async number =>
                    CheckInverted((byte)number, await client.CallAsync(new[] { (byte)number }, Scene.Patience))));
                Check.Eventually("all calls are under way", () => client.InFlight == 9);
                killed.Kill();
                var lost = (PeerDiedException)Check.Throws<AggregateException>(() => begun.Wait(Scene.Patience)).InnerException;
                Check.Equal(RequestState.InDoubt, lost.Request.State);
                Check.That(!behind.Any(call => call.IsCompleted), "there is no server");
                using (var restarted = new ServerProcess(name))
                {
                    Check.That(Task.WaitAll(behind.ToArray(), Scene.Patience), "the calls do not end");
                }
            }
        }

        [Test]
        private static void the_logger_of_a_client_hears_of_its_connection_its_loss_and_the_next_one()
        {
            foreach (int connections in new[] { 0, 2 })
            {
                string name = Channel.New();
                var log = new Logbook();
                DuplexClient client;
                using (Scene.Inverter(name))
                {
                    client = Scene.Client(name, new ClientConfig { Connections = connections, Logger = log });
                    CheckInverted(1, client.Call(new byte[] { 1 }, Scene.Patience));
                }
                using (client)
                {
                    Exception lost = null;
                    for (int call = 0; call < 3; call++)
                    {
                        var error = Check.Throws<ZeroBufferException>(() => client.Call(new byte[1], TimeSpan.FromMilliseconds(10)));
                        lost = lost ?? error;
                    }
                    Check.Equal("Connected to " + name + " ", string.Join(", ", log.At(LogLevel.Information)));
                    Check.Equal(
                        "The server of " + name + " is lost " + lost.GetType().Name, string.Join(", ", log.At(LogLevel.Warning)));
                    using (Scene.Inverter(name))
                    {
                        if (connections == 0)
                        {
                            client.Reconnect(Scene.Patience);
                        }
                        CheckInverted(1, client.CallAsync(new byte[] { 1 }, Scene.Patience).Result);
                        CheckInverted(2, client.Call(new byte[] { 2 }, Scene.Patience));
                    }
                    Check.Equal("Connected to " + name + " again ", log.At(LogLevel.Information).Last());
                    Check.Equal(2, log.At(LogLevel.Information).Length);
                }
            }
        }

        [Test]
        private static void callers_see_nothing_but_requests_in_doubt_while_servers_are_killed_and_restarted()
        {
            string name = Channel.New();
            int answered = 0;
            bool done = false;
            using (DuplexClient client = Mended(name))
            {
                async Task<bool> CallUnlessInDoubt(byte number, bool waits)
                {
                    try
                    {
                        CheckInverted(number, waits
                            ? client.Call(new[] { number }, Scene.Patience)
                            : await client.CallAsync(new[] { number }, Scene.Patience));
                        Interlocked.Increment(ref answered);
                        return false;
                    }
                    catch (PeerDiedException lost) when (lost.Request.State == RequestState.InDoubt)
                    {
                        return true;
                    }
                }
                async Task<int> Caller(byte number, bool waits)
                {
                    int inDoubt = 0;
                    while (!Volatile.Read(ref done))
                    {
                        inDoubt += await CallUnlessInDoubt(number, waits) ? 1 : 0;
                    }
                    return inDoubt;
                }
                Task<int>[] callers = Enumerable.Range(0, 4).Select(number =>
                    Task.Factory.StartNew(() => Caller((byte)number, number < 2), TaskCreationOptions.LongRunning).Unwrap()).ToArray();
                const int Kills = 4;
                using (var server = new ServerProcess(name))
                {
                    for (int kill = 0; kill < Kills; kill++)
                    {
                        int before = Volatile.Read(ref answered);
                        Check.Eventually("calls are answered", () => Volatile.Read(ref answered) > before + 100);
                        server.Kill();
                        server.Start();
                    }
                    Volatile.Write(ref done, true);
                    Check.That(Task.WaitAll(callers, Scene.Patience), "a call does not end");
                }
                // One handler runs at a time.
                int all = callers.Sum(caller => caller.Result);
                Check.That(all <= Kills, all + " requests in doubt after " + Kills + " kills");
            }
        }

        [Test]
        private static void no_call_fails_while_the_servers_of_a_service_are_replaced_one_after_the_other()
        {
            string name = Channel.New();
            Service Serve()
            {
                Service service = Service.Create(name, new ServiceConfig { RingSize = 1 << 16, Workers = 2 });
                service.Start(Scene.Invert);
                return service;
            }
            int answered = 0;
            bool done = false;
            var servers = new Queue<Service>(new[] { Serve(), Serve() });
            using (DuplexClient client = Scene.Client(name, Mending))
            {
                Task[] callers = Enumerable.Range(0, 4).Select(number => OnThread(() =>
                {
                    while (!Volatile.Read(ref done))
                    {
                        Response response = number < 2
                            ? client.Call(new[] { (byte)number }, Scene.Patience)
                            : client.CallAsync(new[] { (byte)number }, Scene.Patience).GetAwaiter().GetResult();
                        CheckInverted((byte)number, response);
                        Interlocked.Increment(ref answered);
                    }
                })).ToArray();
                for (int replaced = 0; replaced < 4; replaced++)
                {
                    int before = Volatile.Read(ref answered);
                    Check.Eventually("calls are answered", () => Volatile.Read(ref answered) > before + 100);
                    servers.Enqueue(Serve());
                    servers.Dequeue().Dispose();
                }
                Volatile.Write(ref done, true);
                Check.That(Task.WaitAll(callers, Scene.Patience), "a call does not end");
            }
            foreach (Service server in servers)
            {
                server.Dispose();
            }
        }

        private static DuplexClient Mended(string name)
        {
            using (Scene.Inverter(name))
            {
                return Scene.Client(name, Mending);
            }
        }

        [Test]
        private static void a_mending_client_outlives_its_servers_and_waits_for_the_next_within_the_timeout()
        {
            string name = Channel.New();
            using (DuplexClient client = Mended(name))
            {
                Check.That(!client.IsServerConnected, "there is no server");
                Check.Throws<ZeroBufferException>(() => client.Call(new byte[1], TimeSpan.FromMilliseconds(30)));
                Task<Response> call = client.CallAsync(new byte[] { 7 }, Scene.Patience);
                using (Scene.Inverter(name))
                {
                    Check.That(call.Wait(Scene.Patience), "the call does not end");
                    CheckInverted(7, call.Result);
                    CheckInverted(8, client.Call(new byte[] { 8 }, Scene.Patience));
                    Check.That(client.IsServerConnected && client.MaxRequestSize > 0, "there is a server");
                }
            }
        }

        [Test]
        private static void calls_of_a_mending_client_are_cancelled_and_end_with_it()
        {
            string name = Channel.New();
            DuplexClient client = Mended(name);
            using (var source = new CancellationTokenSource())
            {
                Task<Response> cancelled = client.CallAsync(new byte[1], Timeout.InfiniteTimeSpan, source.Token);
                Task<Response> ended = client.CallAsync(new byte[1], Timeout.InfiniteTimeSpan);
                Task waiting = OnThread(() => client.Call(new byte[1], Timeout.InfiniteTimeSpan));
                source.Cancel();
                Check.Throws<AggregateException>(() => cancelled.Wait(Scene.Patience));
                Check.That(cancelled.IsCanceled, "it is cancelled");
                Check.That(!ended.IsCompleted && !waiting.IsCompleted, "nobody has ended them");
                client.Dispose();
                foreach (Task call in new[] { ended, waiting })
                {
                    var error = Check.Throws<AggregateException>(() => call.Wait(Scene.Patience)).InnerException;
                    Check.That(error is ObjectDisposedException, "found " + error);
                }
            }
        }

        [Test]
        private static void a_mending_client_says_what_it_cannot_do()
        {
            string name = Channel.New();
            using (DuplexClient client = Mended(name))
            {
                var refused = new Dictionary<string, Action>
                {
                    { "SendRequest", () => client.SendRequest(new byte[1]) },
                    { "AcquireRequestBuffer", () => client.AcquireRequestBuffer(1) },
                    { "ReceiveResponse", () => client.ReceiveResponse(Scene.Patience) },
                    { "ReceiveResponseFor", () => client.ReceiveResponseFor(1, Scene.Patience) },
                    { "Cancel", () => client.Cancel(1) },
                    { "Reconnect", () => client.Reconnect(Scene.Patience) },
                    { "ServerMetadata", () => client.ServerMetadata.Clone() },
                    { "IsInPlace", () => client.IsInPlace.ToString() },
                    { "IsDesynchronised", () => client.IsDesynchronised.ToString() },
                };
                foreach (KeyValuePair<string, Action> member in refused)
                {
                    var error = Check.Throws<UnsupportedException>(member.Value);
                    Check.That(error.What.StartsWith("DuplexClient." + member.Key + " ", StringComparison.Ordinal), error.What);
                }
            }
            Check.Throws<ArgumentOutOfRangeException>(() => new ClientConfig { Connections = -1 });
            Check.Throws<BadConfigException>(() => Scene.Client(name, new ClientConfig { Connections = 1025 }));
        }

        [Test]
        private static void a_mending_client_serves_two_buffers_by_calls_that_wait()
        {
            string name = Channel.New();
            using (var server = MutableDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = StartedWith(server, name))
            {
                CheckInverted(3, client.Call(new byte[] { 3 }, Scene.Patience));
                Task<Response> call = client.CallAsync(new byte[1], Scene.Patience);
                var error = Check.Throws<AggregateException>(() => call.Wait(Scene.Patience)).InnerException;
                Check.That(error is UnsupportedException, "found " + error);
            }
        }

        private static DuplexClient StartedWith(MutableDuplexServer server, string name)
        {
            server.Start(Scene.Invert);
            return Scene.Client(name, Mending);
        }
    }
}
