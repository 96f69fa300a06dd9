using System;
using System.Linq;
using System.Text;
using System.Threading;

namespace ZeroBuffer.Tests
{
    /// <summary>Calls in place and with two buffers.</summary>
    internal static class CallTests
    {
        [Test]
        private static void a_handler_edits_the_request_where_it_lies()
        {
            string name = Channel.New();
            IntPtr inHandler = IntPtr.Zero;
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            {
                server.Start(frame =>
                {
                    inHandler = frame.Address;
                    Scene.Invert(frame);
                });
                using (RequestBuffer request = client.AcquireRequestBuffer(3))
                {
                    new byte[] { 1, 2, 3 }.CopyTo(request.Data);
                    IntPtr written = request.Address;
                    ulong sequence = request.Commit();
                    using (Response response = client.ReceiveResponseFor(sequence, Scene.Patience))
                    {
                        Check.Bytes(new byte[] { 254, 253, 252 }, response.Data);
                        Check.Equal(written, response.Address);
                        Check.Equal(sequence, response.Sequence);
                        Check.Equal(3L, response.Length);
                    }
                }
                Check.That(inHandler != IntPtr.Zero, "the handler did not run");
            }
        }

        [Test]
        private static void calls_of_all_sizes_are_answered()
        {
            string name = Channel.New();
            using (Scene.Inverter(name, new BufferConfig(0, 1 << 20)))
            using (DuplexClient client = Scene.Client(name))
            {
                foreach (int size in new[] { 1, 31, 32, 33, 4096, 100000, (int)client.MaxRequestSize })
                {
                    byte[] data = Enumerable.Range(0, size).Select(index => (byte)(index * 7)).ToArray();
                    using (Response response = client.Call(data, Scene.Patience))
                    {
                        Check.Bytes(data.Select(one => (byte)~one).ToArray(), response.Data);
                        Check.Bytes(response.ToArray(), response.Data);
                    }
                }
            }
        }

        [Test]
        private static void what_the_state_of_a_client_says_is_so()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                Check.Equal(name, client.Name);
                Check.Equal(name, server.Name);
                Check.That(client.IsInPlace && client.IsServerConnected && !client.IsDesynchronised, "state of the client");
                Check.Eventually("the client is seen", () => server.IsClientConnected);
                Check.That(server.IsRunning, "the server runs");
                Check.Equal(0L, client.InFlight);
                ulong sequence = client.SendRequest(new byte[1]);
                Check.Equal(1L, client.InFlight);
                client.ReceiveResponseFor(sequence, Scene.Patience).Dispose();
                client.SendRequest(new byte[1]);
                Check.Equal(1L, client.InFlight);
                client.ReceiveResponse(Scene.Patience).Dispose();
                server.Stop();
                Check.That(!server.IsRunning && !client.IsServerConnected, "the server has stopped");
                server.Stop();
            }
        }

        [Test]
        private static void metadata_goes_both_ways()
        {
            string name = Channel.New();
            var serverConfig = new ServerConfig(Scene.Sizes) { Metadata = Encoding.UTF8.GetBytes("größer als ASCII") };
            var clientConfig = new ClientConfig { Metadata = new byte[] { 0, 1, 255 } };
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, serverConfig))
            using (DuplexClient client = Scene.Client(name, clientConfig))
            {
                server.Start(frame =>
                {
                    byte[] metadata = frame.Metadata;
                    frame.Resize(metadata.Length);
                    metadata.CopyTo(frame.Data);
                });
                Check.Bytes(serverConfig.Metadata, client.ServerMetadata);
                using (Response response = client.Call(new byte[1], Scene.Patience))
                {
                    Check.Bytes(clientConfig.Metadata, response.Data);
                }
            }
        }

        [Test]
        private static void core_dumps_hold_what_channels_carry_only_if_that_is_asked_for()
        {
            foreach (bool include in new[] { true, false })
            {
                CoreDumps.Include(include);
                string name = Channel.New();
                using (Scene.Inverter(name))
                {
                    // Nothing else of this process is mapped from there.
                    string[] lines = System.IO.File.ReadAllLines("/proc/self/smaps");
                    int mapping = Array.FindIndex(lines, line => line.Contains("/dev/shm/"));
                    Check.That(mapping >= 0, "the channel is not mapped");
                    string flags = lines.Skip(mapping).First(line => line.StartsWith("VmFlags:", StringComparison.Ordinal));
                    Check.Equal(include, !flags.Contains(" dd"));
                }
            }
        }

        [Test]
        private static void no_metadata_is_no_bytes()
        {
            string name = Channel.New();
            int found = -1;
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, new BufferConfig(0, 4096)))
            using (DuplexClient client = Scene.Client(name))
            {
                server.Start(frame => { found = frame.Metadata.Length; });
                client.Call(new byte[1], Scene.Patience).Dispose();
                Check.Equal(0, found);
                Check.Equal(0, client.ServerMetadata.Length);
            }
        }

        [Test]
        private static void an_answer_may_be_longer_if_the_request_asks_for_room()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            {
                server.Start(frame =>
                {
                    Check.That(frame.Capacity >= 5000, "the capacity is " + frame.Capacity);
                    frame.Resize(5000);
                    Span<byte> data = frame.Data;
                    data[4999] = 7;
                });
                using (RequestBuffer request = client.AcquireRequestBuffer(10, 5000, 4096))
                {
                    Check.Equal(0L, request.Address.ToInt64() % 4096);
                    Check.That(request.Capacity >= 5000, "the capacity is " + request.Capacity);
                    request.Resize(1);
                    Check.Equal(1L, request.Length);
                    using (Response response = client.ReceiveResponseFor(request.Commit(), Scene.Patience))
                    {
                        Check.Equal(5000L, response.Length);
                        Check.Equal((byte)7, response.Data.ToArray()[4999]);
                    }
                }
            }
        }

        [Test]
        private static void a_ring_made_for_so_many_frames_holds_as_many_and_no_more()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, BufferConfig.ForFrames(1000, 3)))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = TimeSpan.Zero }))
            {
                for (int frame = 0; frame < 3; frame++)
                {
                    client.SendRequest(new byte[1000]);
                }
                Check.Throws<FullException>(() => client.SendRequest(new byte[1000]));
                for (ulong sequence = 1; sequence <= 3; sequence++)
                {
                    Check.That(client.Cancel(sequence), "it is cancelled");
                }
            }
            Check.Throws<ArgumentOutOfRangeException>(() => BufferConfig.ForFrames(-1, 1));
            Check.Throws<ArgumentOutOfRangeException>(() => BufferConfig.ForFrames(1, -1));
            Check.Throws<ZeroBufferException>(
                () => InPlaceDuplexServer.Create(name, BufferConfig.ForFrames(long.MaxValue, long.MaxValue)));
        }

        [Test]
        private static void answers_overtake_each_other_with_two_workers()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, new ServerConfig(Scene.Sizes) { Workers = 2 }))
            using (DuplexClient client = Scene.Client(name))
            using (var release = new ManualResetEventSlim())
            {
                server.Start(frame =>
                {
                    if (frame.Length == 1)
                    {
                        release.Wait();
                    }
                });
                ulong slow = client.SendRequest(new byte[1]);
                ulong quick = client.SendRequest(new byte[2]);
                using (Response response = client.ReceiveResponse(Scene.Patience))
                {
                    Check.Equal(quick, response.Sequence);
                }
                release.Set();
                using (Response response = client.ReceiveResponse(Scene.Patience))
                {
                    Check.Equal(slow, response.Sequence);
                }
            }
        }

        [Test]
        private static void a_client_has_request_buffers_and_receives_any_answer()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                RequestBuffer abandoned = client.AcquireRequestBuffer(1);
                abandoned.Dispose();
                using (RequestBuffer buffer = client.AcquireRequestBuffer(1))
                {
                    buffer.Data.Fill(1);
                    ulong sequence = buffer.Commit();
                    using (Response response = client.ReceiveResponse(Scene.Patience))
                    {
                        Check.Equal(sequence, response.Sequence);
                        Check.Bytes(new byte[] { 254 }, response.Data);
                    }
                }
                RequestBuffer open = client.AcquireRequestBuffer(1);
                client.Dispose();
                Check.Throws<ObjectDisposedException>(() => open.Commit());
                open.Dispose();
                Scene.Client(name).Dispose();
            }
        }

        [Test]
        private static void a_client_is_called_by_many_at_once()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                CallFromManyThreads(client);
            }
        }

        private static void CallFromManyThreads(DuplexClient client)
        {
            Exception error = null;
            Thread[] threads = Enumerable.Range(0, 4).Select(number => new Thread(() =>
            {
                try
                {
                    for (int round = 0; round < 500; round++)
                    {
                        var data = new[] { (byte)number, (byte)round };
                        using (Response response = client.Call(data, Scene.Patience))
                        {
                            Check.Bytes(new[] { (byte)~number, (byte)~round }, response.Data);
                        }
                    }
                }
                catch (Exception failure)
                {
                    error = failure;
                }
            })).ToArray();
            foreach (Thread thread in threads)
            {
                thread.Start();
            }
            foreach (Thread thread in threads)
            {
                thread.Join();
            }
            Check.That(error == null, "a thread failed: " + error);
        }

        [Test]
        private static void another_thread_can_make_room_for_one_that_waits_for_it()
        {
            string name = Channel.New();
            using (Scene.Inverter(name, new BufferConfig(0, 4096)))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = Scene.Patience }))
            {
                var waits = new Action[]
                {
                    () => client.Call(new byte[3000], Scene.Patience).Dispose(),
                    () => client.ReceiveResponseFor(client.SendRequest(new byte[3000]), Scene.Patience).Dispose(),
                    () =>
                    {
                        using (RequestBuffer buffer = client.AcquireRequestBuffer(3000))
                        {
                            client.ReceiveResponseFor(buffer.Commit(), Scene.Patience).Dispose();
                        }
                    },
                };
                foreach (Action wait in waits)
                {
                    Response held = client.Call(new byte[3000], Scene.Patience);
                    var since = System.Diagnostics.Stopwatch.StartNew();
                    var thread = new Thread(() =>
                    {
                        Thread.Sleep(50);
                        held.Dispose();
                    });
                    thread.Start();
                    wait();
                    thread.Join();
                    // Well before the one that waits would have timed out.
                    Check.That(since.Elapsed < TimeSpan.FromSeconds(10), "it took " + since.Elapsed);
                }
            }
        }

        [Test]
        private static void requests_are_pulled_answered_failed_and_detached()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            {
                ulong[] sequences = { client.SendRequest(new byte[] { 1 }), client.SendRequest(new byte[] { 2 }), client.SendRequest(new byte[] { 3 }) };
                Request first = server.Receive(Scene.Patience);
                Check.Throws<InvalidStateException>(() => server.Receive(TimeSpan.Zero));
                Scene.Invert(first);
                first.Detach();
                first.Detach();
                using (Request second = server.Receive(Scene.Patience))
                {
                    second.Fail("not this one");
                }
                using (server.Receive(Scene.Patience))
                {
                    // Dropped.
                }
                Check.Throws<ChannelTimeoutException>(() => server.Receive(TimeSpan.Zero));
                Check.Bytes(new byte[] { 254 }, first.Data);
                first.Respond();
                Check.Throws<ObjectDisposedException>(first.Respond);
                first.Dispose();
                using (Response response = client.ReceiveResponseFor(sequences[0], Scene.Patience))
                {
                    Check.Bytes(new byte[] { 254 }, response.Data);
                }
                var failure = Check.Throws<HandlerFailedException>(() => client.ReceiveResponseFor(sequences[1], Scene.Patience));
                Check.Equal("not this one", failure.HandlerMessage);
                var dropped = Check.Throws<HandlerFailedException>(() => client.ReceiveResponseFor(sequences[2], Scene.Patience));
                Check.Equal(3, dropped.Status);
            }
        }

        [Test]
        private static void two_buffers_with_a_mutable_server()
        {
            string name = Channel.New();
            using (MutableDuplexServer server = MutableDuplexServer.Create(name, Scene.Sizes))
            {
                server.Start(Scene.Invert);
                using (DuplexClient client = Scene.Client(name, new ClientConfig { ResponseBuffer = new BufferConfig(0, 1 << 16) }))
                using (Response response = client.Call(new byte[] { 1, 2 }, Scene.Patience))
                {
                    Check.That(!client.IsInPlace && !client.IsDesynchronised, "two buffers");
                    Check.Bytes(new byte[] { 254, 253 }, response.Data);
                    response.Dispose();
                    client.Reconnect(Scene.Patience);
                    using (Response next = client.Call(new byte[] { 3 }, Scene.Patience))
                    {
                        Check.Bytes(new byte[] { 252 }, next.Data);
                    }
                }
            }
        }

        [Test]
        private static void two_buffers_with_an_immutable_server()
        {
            foreach (bool reply in new[] { false, true })
            {
                string name = Channel.New();
                using (ImmutableDuplexServer server = ImmutableDuplexServer.Create(name, Scene.Sizes))
                {
                    if (reply)
                    {
                        server.Start(frame => frame.Data.CopyTo(frame.Reply((int)frame.Length)));
                    }
                    else
                    {
                        server.Start(frame => frame.Data.ToArray().Reverse().ToArray());
                    }
                    using (DuplexClient client = Scene.Client(name))
                    using (Response response = client.Call(new byte[] { 1, 2, 3 }, Scene.Patience))
                    {
                        Check.Bytes(reply ? new byte[] { 1, 2, 3 } : new byte[] { 3, 2, 1 }, response.Data);
                    }
                }
            }
        }

        [Test]
        private static void a_client_reconnects_and_is_told_what_was_lost()
        {
            string name = Channel.New();
            InPlaceDuplexServer former = InPlaceDuplexServer.Create(
                name, new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.FromMilliseconds(50) });
            using (DuplexClient client = Scene.Client(name))
            {
                ulong sent = client.SendRequest(new byte[] { 1 });
                former.Dispose();
                using (Scene.Inverter(name))
                {
                    Reconnected report = client.Reconnect(Scene.Patience);
                    Check.Equal(0, report.Resent.Count);
                    Check.Equal(sent, report.Lost.Single().Sequence);
                    Check.Equal(RequestState.NotStarted, report.Lost.Single().State);
                    using (Response response = client.Call(new byte[] { 1 }, Scene.Patience))
                    {
                        Check.Bytes(new byte[] { 254 }, response.Data);
                    }
                }
            }
        }
    }
}
