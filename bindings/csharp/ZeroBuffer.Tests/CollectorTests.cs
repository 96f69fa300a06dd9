using System;
using System.Collections.Generic;
using System.Diagnostics.Tracing;
using System.IO;
using System.Linq;
using System.Runtime.CompilerServices;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Tests
{
    /// <summary>What was forgotten is collected when the ring has gone round, and no caller waits for the collector or a finalizer.</summary>
    internal static class CollectorTests
    {
        private const int Size = 3000;
        private static readonly BufferConfig EightFrames = BufferConfig.ForFrames(Size, 8);

        /// <summary>For what would never end.</summary>
        private static readonly TimeSpan Limit = TimeSpan.FromSeconds(15);

        private static Task OnThread(Action action) => Task.Factory.StartNew(action, TaskCreationOptions.LongRunning);

        private static void Ends(string what, Task task)
        {
            Check.That(Task.WaitAny(new[] { task }, Limit) == 0, what + " does not end");
            task.GetAwaiter().GetResult();
        }

        /// <summary>They are sent before the first one is received, so the collector is called for none of them.</summary>
        private static Response[] Hold(DuplexClient client, int count, int size = Size)
        {
            ulong[] sent = Enumerable.Range(0, count).Select(_ => client.SendRequest(new byte[size])).ToArray();
            return sent.Select(sequence => client.ReceiveResponseFor(sequence, Scene.Patience)).ToArray();
        }

        /// <summary>What users write, too: its finalizer waits for something that may take long.</summary>
        private sealed class Blocker
        {
            private readonly ManualResetEventSlim _blocked;
            private readonly ManualResetEventSlim _release;

            internal Blocker(ManualResetEventSlim blocked, ManualResetEventSlim release)
            {
                _blocked = blocked;
                _release = release;
            }

            ~Blocker()
            {
                _blocked.Set();
                _release.Wait();
            }
        }

        [Test]
        private static void calls_and_requests_end_in_time_also_while_a_finalizer_blocks()
        {
            TimeSpan soon = TimeSpan.FromMilliseconds(200);
            var ways = new Dictionary<string, Action<DuplexClient>>
            {
                ["Call"] = client => client.Call(new byte[Size], soon).Dispose(),
                ["CallAsync"] = client => client.CallAsync(new byte[Size], soon).GetAwaiter().GetResult().Dispose(),
                ["SendRequest"] = client => client.SendRequest(new byte[Size]),
                ["AcquireRequestBuffer"] = client => client.AcquireRequestBuffer(Size).Dispose(),
            };
            foreach (KeyValuePair<string, Action<DuplexClient>> way in ways)
            {
                string name = Channel.New();
                using (var blocked = new ManualResetEventSlim())
                using (var release = new ManualResetEventSlim())
                using (Scene.Inverter(name, EightFrames))
                using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = soon }))
                {
                    Response[] held = Hold(client, 8);
                    Scene.Elsewhere(() => GC.KeepAlive(new Blocker(blocked, release)));
                    Task asking = OnThread(() => Check.Throws<FullException>(() => way.Value(client)));
                    try
                    {
                        Ends(way.Key, asking);
                        // The collector was called for it, and the finalizer blocks.
                        Check.That(blocked.Wait(Limit), "nothing was collected for " + way.Key);
                    }
                    finally
                    {
                        release.Set();
                    }
                    GC.KeepAlive(held);
                }
            }
        }

        /// <summary>What users write, too: it owns a client, and disposes of it when it was forgotten, whatever it does at that moment.</summary>
        private sealed class Camera
        {
            private readonly DuplexClient _client;

            internal Camera(DuplexClient client)
            {
                _client = client;
            }

            ~Camera() => _client.Dispose();

            /// <summary>Nothing refers to the camera once the call has begun: compiled for speed at once, as a program that runs for long is.</summary>
            [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
            internal void Take() => _client.Call(new byte[Size], Timeout.InfiniteTimeSpan).Dispose();

            [MethodImpl(MethodImplOptions.AggressiveOptimization | MethodImplOptions.NoInlining)]
            internal static Response[] HoldAndTake(string name)
            {
                DuplexClient client = Scene.Client(name);
                Response[] held = Hold(client, 8);
                new Camera(client).Take();
                return held;
            }
        }

        [Test]
        private static void a_users_finalizer_may_dispose_of_a_client_while_its_last_call_waits_for_room()
        {
            string name = Channel.New();
            using (Scene.Inverter(name, EightFrames))
            {
                // The collector that is called for the room finds the camera, and only its finalizer ends the call.
                Task taking = OnThread(() => Check.Throws<ObjectDisposedException>(() => Camera.HoldAndTake(name)));
                Ends("the call", taking);
            }
        }

        [Test]
        private static void a_request_waits_for_room_for_one_send_timeout_whatever_is_forgotten_meanwhile()
        {
            TimeSpan pause = TimeSpan.FromMilliseconds(250);
            var ways = new Action<DuplexClient>[]
            {
                client => client.SendRequest(new byte[5 * Size]),
                client => client.AcquireRequestBuffer(5 * Size).Dispose(),
            };
            foreach (Action<DuplexClient> way in ways)
            {
                string name = Channel.New();
                using (Scene.Inverter(name, EightFrames))
                using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = 4 * pause }))
                {
                    // The first one stops the ring, whatever becomes of those behind it.
                    Response[] first = Hold(client, 1);
                    Response[] others = Hold(client, 60, 100);
                    Task asking = OnThread(() => Check.Throws<FullException>(() => way(client)));
                    // One after the other is forgotten, for far longer than the request may take.
                    int forgotten = 0;
                    while (forgotten < others.Length && Task.WaitAny(new[] { asking }, pause) != 0)
                    {
                        others[forgotten] = null;
                        forgotten++;
                    }
                    Check.That(forgotten < others.Length, "the request goes on as long as something is forgotten");
                    Ends("the request", asking);
                    GC.KeepAlive(first);
                }
            }
        }

        [Test]
        private static void a_response_that_is_forgotten_while_a_call_waits_for_room_makes_room()
        {
            string name = Channel.New();
            using (Scene.Inverter(name, EightFrames))
            using (DuplexClient client = Scene.Client(name))
            {
                Response[] held = Hold(client, 8);
                int before = GC.CollectionCount(2);
                Task calling = OnThread(() => client.Call(new byte[Size], Timeout.InfiniteTimeSpan).Dispose());
                // For nothing, and not for the last time.
                Check.Eventually("the collector is called", () => GC.CollectionCount(2) >= before + 3);
                Check.That(!calling.IsCompleted, "there is room");
                Array.Clear(held, 0, held.Length);
                Ends("the call", calling);
            }
        }

        [Test]
        private static void a_forgotten_response_does_not_stop_requests_that_are_sent_ahead()
        {
            string name = Channel.New();
            using (Scene.Inverter(name, EightFrames))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = Timeout.InfiniteTimeSpan }))
            {
                ulong[] ahead = Enumerable.Range(0, 8).Select(_ => client.SendRequest(new byte[Size])).ToArray();
                Scene.Elsewhere(() => GC.KeepAlive(client.ReceiveResponseFor(ahead[0], Scene.Patience)));
                Ends("the request", OnThread(() => client.SendRequest(new byte[Size])));
            }
        }

        [Test]
        private static void a_forgotten_response_does_not_stop_calls_that_were_started_before_it_came()
        {
            string name = Channel.New();
            using (var serves = new ManualResetEventSlim(true))
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, EightFrames))
            using (DuplexClient client = Scene.Client(name))
            {
                server.Start(frame => { serves.Wait(); });
                Scene.Elsewhere(() => GC.KeepAlive(client.Call(new byte[Size], Scene.Patience)));
                serves.Reset();
                async Task Call() => (await client.CallAsync(new byte[Size], Timeout.InfiniteTimeSpan)).Dispose();
                Task calls = Task.WhenAll(Enumerable.Range(0, 100).Select(_ => Call()));
                serves.Set();
                Ends("a call", calls);
            }
        }

        [Test]
        private static void a_forgotten_response_does_not_stop_short_calls_which_leave_room_in_the_ring()
        {
            string name = Channel.New();
            using (Scene.Inverter(name, new BufferConfig(0, 1 << 20)))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { MaxInFlight = 16 }))
            {
                Scene.Elsewhere(() => GC.KeepAlive(client.Call(new byte[1], Scene.Patience)));
                Ends("a call", OnThread(() =>
                {
                    for (int call = 0; call < 100; call++)
                    {
                        client.Call(new byte[1], Timeout.InfiniteTimeSpan).Dispose();
                    }
                }));
            }
        }

        /// <summary>Hears on which threads of the system collections were begun that somebody has asked for.</summary>
        private sealed class Collections : EventListener
        {
            private const int CollectorKeyword = 1;
            private const uint Induced = 1;

            private readonly List<long> _threads = new List<long>();

            internal long[] Threads()
            {
                lock (_threads)
                {
                    return _threads.ToArray();
                }
            }

            protected override void OnEventSourceCreated(EventSource source)
            {
                if (source.Name == "Microsoft-Windows-DotNETRuntime")
                {
                    EnableEvents(source, EventLevel.Informational, (EventKeywords)CollectorKeyword);
                }
            }

            protected override void OnEventWritten(EventWrittenEventArgs written)
            {
                if (written.EventName == "GCStart_V2" && (uint)written.Payload[2] == Induced)
                {
                    lock (_threads)
                    {
                        _threads.Add(written.OSThreadId);
                    }
                }
            }
        }

        [Test]
        private static void no_collection_is_begun_on_a_callers_thread()
        {
            string name = Channel.New();
            using (Scene.Inverter(name, EightFrames))
            using (DuplexClient client = Scene.Client(name))
            using (var collections = new Collections())
            {
                Response[] held = Hold(client, 7);
                long caller = 0;
                Ends("the calls", OnThread(() =>
                {
                    caller = long.Parse(File.ReadAllText("/proc/thread-self/stat").Split(' ')[0]);
                    client.CallAsync(new byte[Size], Scene.Patience).Result.Dispose();
                    Check.Eventually("the collector is called", () => collections.Threads().Length > 0);
                }));
                Check.That(!collections.Threads().Contains(caller), "a caller collects");
                GC.KeepAlive(held);
            }
        }
    }
}
