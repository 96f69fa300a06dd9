using System;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Threading;

namespace ZeroBuffer.Tests
{
    /// <summary>Who lives for how long: nothing is used after its end, and nothing outlives its use.</summary>
    internal static class LifetimeTests
    {
        [Test]
        private static void a_disposed_client_is_of_no_more_use()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            {
                DuplexClient client = Scene.Client(name);
                client.Dispose();
                client.Dispose();
                Check.Throws<ObjectDisposedException>(() => client.Call(new byte[1], Scene.Patience));
                Check.Throws<ObjectDisposedException>(() => client.SendRequest(new byte[1]));
                Check.Throws<ObjectDisposedException>(() => client.AcquireRequestBuffer(1));
                Check.Throws<ObjectDisposedException>(() => client.ReceiveResponse(TimeSpan.Zero));
                Check.Throws<ObjectDisposedException>(() => client.Cancel(1));
                Check.Throws<ObjectDisposedException>(() => client.Reconnect(TimeSpan.Zero));
                Check.Throws<ObjectDisposedException>(() => Use(client.InFlight));
                Check.Throws<ObjectDisposedException>(() => Use(client.IsServerConnected));
                Check.Throws<ObjectDisposedException>(() => Use(client.ServerMetadata));
                Check.Throws<ObjectDisposedException>(() => client.CallAsync(new byte[1], Scene.Patience));
                Scene.Client(name).Dispose();
            }
        }

        private static void Use<T>(T value)
        {
            GC.KeepAlive(value);
        }

        [Test]
        private static void a_disposed_server_is_of_no_more_use()
        {
            string name = Channel.New();
            InPlaceDuplexServer server = Scene.Inverter(name);
            Check.Throws<InvalidStateException>(() => server.Start(Scene.Invert));
            Check.Throws<InvalidStateException>(() => server.Receive(TimeSpan.Zero));
            server.Dispose();
            server.Dispose();
            Check.Throws<ObjectDisposedException>(() => Use(server.IsRunning));
            Check.Throws<ObjectDisposedException>(() => server.Start(Scene.Invert));
            Check.Throws<ObjectDisposedException>(server.Stop);
            Check.Throws<ArgumentNullException>(() => server.Start((Action<Frame>)null));
        }

        [Test]
        private static void a_response_is_of_no_more_use_after_its_end()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                Response response = client.Call(new byte[] { 1 }, Scene.Patience);
                response.Dispose();
                response.Dispose();
                Check.Throws<ObjectDisposedException>(() => response.ToArray());
                Check.Throws<ObjectDisposedException>(() => Use(response.Length));
                // Its memory is another response's now, which the former one must not reach.
                using (Response next = client.Call(new byte[] { 2 }, Scene.Patience))
                {
                    response.Dispose();
                    Check.Bytes(new byte[] { 253 }, next.Data);
                    Check.Throws<ObjectDisposedException>(() => Use(response.Address));
                }
            }
        }

        [Test]
        private static void a_response_is_not_reached_by_what_holds_an_earlier_one()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                Response earlier = client.Call(new byte[] { 1 }, Scene.Patience);
                for (int round = 0; round < 1000; round++)
                {
                    bool go = false;
                    Response former = earlier;
                    var late = new Thread(() =>
                    {
                        SpinWait.SpinUntil(() => Volatile.Read(ref go));
                        former.Dispose();
                        former.Dispose();
                    });
                    late.Start();
                    Volatile.Write(ref go, true);
                    former.Dispose();
                    Response next = client.Call(new[] { (byte)round }, Scene.Patience);
                    late.Join();
                    Check.Bytes(new[] { (byte)~round }, next.Data);
                    Check.Throws<ObjectDisposedException>(() => former.ToArray());
                    earlier = next;
                }
                earlier.Dispose();
            }
        }

        [Test]
        private static void a_response_can_be_made_of_bytes()
        {
            Response made = Response.FromBytes(new byte[] { 1, 2, 3 }, 7);
            Check.Equal(7UL, made.Sequence);
            Check.Equal(3L, made.Length);
            Check.Bytes(new byte[] { 1, 2, 3 }, made.Data);
            Check.Bytes(new byte[] { 1, 2, 3 }, made.ToArray());
            made.Dispose();
            made.Dispose();
            Check.Throws<ObjectDisposedException>(() => made.ToArray());
            using (Response empty = Response.FromBytes(default))
            {
                Check.Equal(0, empty.Data.Length);
            }
            Scene.Elsewhere(() => GC.KeepAlive(Response.FromBytes(new byte[1000])));
            Scene.Collect();
        }

        [Test]
        private static void responses_outlive_their_client()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            {
                DuplexClient client = Scene.Client(name);
                Response[] held = Enumerable.Range(0, 4).Select(number => client.Call(new[] { (byte)number }, Scene.Patience)).ToArray();
                held[1].Dispose();
                held[3].Dispose();
                client.Dispose();
                Check.Bytes(new byte[] { 255 }, held[0].Data);
                // The connection has ended all the same.
                Scene.Client(name).Dispose();
                Check.Bytes(new byte[] { 253 }, held[2].Data);
                held[0].Dispose();
                held[2].Dispose();
            }
        }

        [Test]
        private static void a_response_may_be_read_while_its_client_is_disposed()
        {
            for (int round = 0; round < 100; round++)
            {
                string name = Channel.New();
                using (Scene.Inverter(name))
                {
                    DuplexClient client = Scene.Client(name);
                    using (Response response = client.Call(new byte[5], Scene.Patience))
                    {
                        ReadWhile(response, client.Dispose);
                    }
                }
            }
        }

        /// <summary>Looks at it on another thread, all the time that <paramref name="action"/> takes.</summary>
        private static void ReadWhile(Response response, Action action)
        {
            bool done = false;
            bool torn = false;
            var reader = new Thread(() =>
            {
                while (!Volatile.Read(ref done))
                {
                    torn |= response.Length != 5 || response.Address == IntPtr.Zero;
                }
            });
            reader.Start();
            Thread.Yield();
            action();
            Volatile.Write(ref done, true);
            reader.Join();
            Check.That(!torn, "the response was not there for a moment");
        }

        [Test]
        private static void responses_outlive_a_reconnection()
        {
            string name = Channel.New();
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.FromMilliseconds(50) };
            InPlaceDuplexServer former = Scene.Inverter(name, config);
            using (DuplexClient client = Scene.Client(name))
            {
                Response held = client.Call(new byte[] { 1 }, Scene.Patience);
                former.Dispose();
                using (Scene.Inverter(name))
                {
                    client.Reconnect(Scene.Patience);
                    using (Response response = client.Call(new byte[] { 2 }, Scene.Patience))
                    {
                        Check.Bytes(new byte[] { 253 }, response.Data);
                        Check.Bytes(new byte[] { 254 }, held.Data);
                    }
                    held.Dispose();
                }
            }
        }

        [Test]
        private static void a_request_buffer_ends_with_its_client()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            {
                DuplexClient client = Scene.Client(name);
                RequestBuffer buffer = client.AcquireRequestBuffer(10);
                Check.Throws<ClaimOpenException>(() => client.AcquireRequestBuffer(10));
                Check.Throws<TooLargeException>(() => buffer.Resize(1 << 20));
                client.Dispose();
                Check.Throws<ObjectDisposedException>(() => Use(buffer.Address));
                Check.Throws<ObjectDisposedException>(() => buffer.Commit());
                buffer.Dispose();
            }
        }

        [Test]
        private static void a_request_buffer_is_of_no_more_use_after_its_end()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                RequestBuffer abandoned = client.AcquireRequestBuffer(10);
                abandoned.Dispose();
                Check.Throws<ObjectDisposedException>(() => abandoned.Commit());
                RequestBuffer committed = client.AcquireRequestBuffer(10);
                ulong sequence = committed.Commit();
                Check.Throws<ObjectDisposedException>(() => committed.Commit());
                Check.Throws<ObjectDisposedException>(() => Use(committed.Length));
                abandoned.Dispose();
                committed.Dispose();
                client.ReceiveResponseFor(sequence, Scene.Patience).Dispose();
            }
        }

        [Test]
        private static void a_frame_is_of_no_more_use_after_its_handler()
        {
            string name = Channel.New();
            Frame kept = null;
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            {
                server.Start(frame => { kept = frame; });
                client.Call(new byte[1], Scene.Patience).Dispose();
                Check.Eventually("the handler has returned", () => Ends(kept));
                Check.Equal(1ul, kept.Sequence);
                Check.Throws<ObjectDisposedException>(() => Use(kept.Metadata));
                Check.Throws<ObjectDisposedException>(() => kept.Resize(1));
                Check.Throws<ObjectDisposedException>(() => kept.Reply(1).Clear());
            }
        }

        private static bool Ends(Frame frame)
        {
            try
            {
                return frame.Length < 0;
            }
            catch (ObjectDisposedException)
            {
                return true;
            }
        }

        [Test]
        private static void a_received_request_ends_with_its_server_unless_detached()
        {
            string name = Channel.New();
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.FromMilliseconds(50) };
            InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, config);
            using (DuplexClient client = Scene.Client(name))
            {
                ulong first = client.SendRequest(new byte[] { 1 });
                ulong second = client.SendRequest(new byte[] { 2 });
                Request detached = server.Receive(Scene.Patience);
                detached.Detach();
                Request undetached = server.Receive(Scene.Patience);
                server.Dispose();
                Check.Throws<ObjectDisposedException>(() => Use(undetached.Address));
                Check.Throws<ObjectDisposedException>(undetached.Respond);
                undetached.Dispose();
                Check.Bytes(new byte[] { 1 }, detached.Data);
                detached.Respond();
                Check.Throws<HandlerFailedException>(() => client.ReceiveResponseFor(second, Scene.Patience));
                client.Cancel(first);
            }
        }

        private static bool HasRoom(DuplexClient client)
        {
            try
            {
                client.AcquireRequestBuffer(3000).Dispose();
                return true;
            }
            catch (FullException)
            {
                return false;
            }
        }

        [Test]
        private static void the_collector_releases_responses_that_were_forgotten()
        {
            string name = Channel.New();
            using (Scene.Inverter(name, new BufferConfig(0, 4096)))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = TimeSpan.Zero }))
            {
                for (int round = 0; round < 20; round++)
                {
                    Scene.Elsewhere(() => GC.KeepAlive(client.Call(new byte[3000], Scene.Patience)));
                    Check.Eventually("room", () =>
                    {
                        Scene.Collect();
                        return HasRoom(client);
                    });
                }
            }
        }

        /// <summary>Keeps one response forgotten, and uses the client until the ring has gone round several times.</summary>
        private static void Forget(Func<DuplexClient, byte[], Response> call, int size)
        {
            string name = Channel.New();
            using (Scene.Inverter(name, BufferConfig.ForFrames(size, 8)))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = Timeout.InfiniteTimeSpan }))
            {
                var data = new byte[size];
                for (int lap = 0; lap < 3; lap++)
                {
                    Scene.Elsewhere(() => GC.KeepAlive(call(client, data)));
                    for (int round = 0; round < 8; round++)
                    {
                        call(client, data).Dispose();
                    }
                    // The next one is not too soon.
                    Thread.Sleep(150);
                }
            }
        }

        [Test]
        private static void a_forgotten_response_does_not_stop_the_ring()
        {
            // Without a deadline: a call that waited for the collector would wait for ever.
            TimeSpan forever = Timeout.InfiniteTimeSpan;
            Forget((client, data) => client.Call(data, forever), 3000);
            Forget((client, data) => client.CallAsync(data, forever).Result, 1 << 20);
            Forget((client, data) => client.ReceiveResponseFor(client.SendRequest(data), forever), 100);
            Forget(
                (client, data) =>
                {
                    using (RequestBuffer buffer = client.AcquireRequestBuffer(data.Length))
                    {
                        return client.ReceiveResponseFor(buffer.Commit(), forever);
                    }
                },
                3000);
        }

        [Test]
        private static void what_is_forgotten_just_after_a_collection_does_not_keep_a_call_waiting()
        {
            foreach (bool isAsync in new[] { false, true })
            {
                string name = Channel.New();
                using (Scene.Inverter(name, BufferConfig.ForFrames(3000, 8)))
                using (DuplexClient client = Scene.Client(name))
                {
                    var data = new byte[3000];
                    Scene.Elsewhere(() =>
                    {
                        Response held = client.Call(data, Scene.Patience);
                        for (int round = 0; round < 7; round++)
                        {
                            // The collector is called before one of these, for nothing.
                            client.Call(data, Scene.Patience).Dispose();
                        }
                        GC.KeepAlive(held);
                    });
                    if (isAsync)
                    {
                        client.CallAsync(data, Timeout.InfiniteTimeSpan).Result.Dispose();
                    }
                    else
                    {
                        client.Call(data, Timeout.InfiniteTimeSpan).Dispose();
                    }
                }
            }
        }

        [Test]
        private static void responses_that_are_held_are_no_reason_to_collect_again_and_again()
        {
            string name = Channel.New();
            using (Scene.Inverter(name, BufferConfig.ForFrames(3000, 8)))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = TimeSpan.Zero }))
            {
                Response[] held = Enumerable.Range(0, 8).Select(_ => client.Call(new byte[3000], Scene.Patience)).ToArray();
                int before = GC.CollectionCount(2);
                for (int round = 0; round < 1000; round++)
                {
                    Check.Throws<FullException>(() => client.SendRequest(new byte[3000]));
                }
                int collected = GC.CollectionCount(2) - before;
                Check.That(collected < 100, collected + " collections");
                foreach (Response response in held)
                {
                    Check.Bytes(Enumerable.Repeat((byte)255, 3000).ToArray(), response.Data);
                    response.Dispose();
                }
            }
        }

        [Test]
        private static void a_response_stays_readable_when_its_client_was_forgotten()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            {
                Response response = null;
                Scene.Elsewhere(() => response = Scene.Client(name).Call(new byte[1], Scene.Patience));
                Scene.Collect();
                // That one was closed.
                using (DuplexClient client = Scene.Client(name))
                {
                    client.Call(new byte[] { 2 }, Scene.Patience).Dispose();
                    Check.Bytes(new byte[] { 255 }, response.Data);
                    response.Dispose();
                }
            }
        }

        [Test]
        private static void the_collector_closes_clients_and_servers_that_were_forgotten()
        {
            string name = Channel.New();
            Scene.Elsewhere(() =>
            {
                InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes);
                DuplexClient client = Scene.Client(name);
                client.SendRequest(new byte[1]);
                server.Receive(Scene.Patience).Detach();
                Use(client.AcquireRequestBuffer(1));
            });
            Check.Eventually("the names are removed", () =>
            {
                Scene.Collect();
                return Channel.Objects().Length == 0;
            });
        }

        [Test]
        private static void a_server_with_a_handler_serves_although_nothing_refers_to_it()
        {
            string name = Channel.New();
            WeakReference server = null;
            Scene.Elsewhere(() => server = new WeakReference(Scene.Inverter(name)));
            Scene.Collect();
            Check.That(server.Target != null, "the server was collected");
            using (DuplexClient client = Scene.Client(name))
            {
                for (int round = 0; round < 100; round++)
                {
                    client.Call(new byte[] { 1 }, Scene.Patience).Dispose();
                }
            }
            ((IDisposable)server.Target).Dispose();
        }

        [Test]
        private static void a_handler_may_look_at_its_server_while_that_waits_for_it_to_stop()
        {
            foreach (bool dispose in new[] { false, true })
            {
                string name = Channel.New();
                using (var started = new ManualResetEventSlim())
                using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
                using (DuplexClient client = Scene.Client(name))
                {
                    string seen = null;
                    server.Start(frame =>
                    {
                        started.Set();
                        while (server.IsRunning)
                        {
                            Thread.Sleep(1);
                        }
                        seen = "connected: " + server.IsClientConnected;
                    });
                    var caller = new Thread(() => client.Call(new byte[1], Scene.Patience).Dispose());
                    caller.Start();
                    Check.That(started.Wait(Scene.Patience), "the handler is not called");
                    (dispose ? (Action)server.Dispose : server.Stop)();
                    caller.Join();
                    Check.Equal("connected: True", seen);
                }
            }
        }

        [Test]
        private static void a_server_stops_when_its_process_exits()
        {
            string name = Channel.New();
            using (Process process = Runner.Begin(Runner.ServeAndExit, name))
            {
                Check.That(process.WaitForExit((int)Scene.Patience.TotalMilliseconds), "the process does not end");
                Check.Equal(Runner.Served, process.ExitCode);
            }
        }

        [Test]
        private static void a_client_may_be_disposed_while_another_thread_waits_in_it()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer.Create(name, Scene.Sizes))
            {
                DuplexClient client = Scene.Client(name);
                Exception error = null;
                var thread = new Thread(() =>
                {
                    try
                    {
                        client.Call(new byte[1], TimeSpan.FromMilliseconds(300)).Dispose();
                    }
                    catch (Exception failure)
                    {
                        error = failure;
                    }
                });
                thread.Start();
                Thread.Sleep(50);
                client.Dispose();
                thread.Join();
                Check.That(error is ZeroBufferException || error is ObjectDisposedException, "found " + error);
            }
        }

        [Test]
        private static void descriptors_and_mappings_stay_as_they_are()
        {
            OpenAndClose();
            Scene.Collect();
            int descriptors = Descriptors();
            for (int round = 0; round < 30; round++)
            {
                OpenAndClose();
            }
            Scene.Collect();
            Check.Equal(descriptors, Descriptors());
            string maps = File.ReadAllText("/proc/self/maps");
            Check.That(!maps.Contains("zbcs" + Process.GetCurrentProcess().Id), "something is still mapped");
        }

        private static void OpenAndClose()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                client.Call(new byte[1], Scene.Patience).Dispose();
            }
        }

        private static int Descriptors()
        {
            return Directory.GetFileSystemEntries("/proc/self/fd").Count();
        }
    }
}
