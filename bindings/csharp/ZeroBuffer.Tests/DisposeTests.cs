using System;
using System.Threading;

namespace ZeroBuffer.Tests
{
    /// <summary>Disposing of an object ends the waits of other threads in it.</summary>
    internal static class DisposeTests
    {
        private static readonly TimeSpan Forever = Timeout.InfiniteTimeSpan;

        /// <summary>Disposes of it while another thread waits in it without a deadline, and after something else.</summary>
        private static void EndsWait(IDisposable waitedIn, Action wait, Action before = null)
        {
            Exception error = null;
            using (var begun = new ManualResetEventSlim())
            {
                var thread = new Thread(() =>
                {
                    try
                    {
                        begun.Set();
                        wait();
                    }
                    catch (Exception failure)
                    {
                        error = failure;
                    }
                });
                thread.IsBackground = true;
                thread.Start();
                Check.That(begun.Wait(Scene.Patience), "the thread does not start");
                Thread.Sleep(50);
                Check.That(error == null, "it does not wait: " + error);
                before?.Invoke();
                waitedIn.Dispose();
                Check.That(thread.Join(Scene.Patience), "the thread waits on");
            }
            Check.That(error is ObjectDisposedException, "found " + error);
        }

        private static void WithEachClient(Action<DuplexClient> test, ClientConfig config, BufferConfig sizes)
        {
            string name = Channel.New();
            var ofServer = new ServerConfig(sizes) { StopTimeout = TimeSpan.FromMilliseconds(50) };
            using (InPlaceDuplexServer.Create(name, ofServer))
            {
                test(Scene.Client(name, config));
            }
        }

        [Test]
        private static void disposing_of_a_client_ends_the_wait_for_an_answer()
        {
            Action<DuplexClient>[] waits =
            {
                client => client.Call(new byte[1], Forever),
                client => client.ReceiveResponse(Forever),
                client => client.ReceiveResponseFor(client.SendRequest(new byte[1]), Forever),
            };
            foreach (Action<DuplexClient> wait in waits)
            {
                WithEachClient(client => EndsWait(client, () => wait(client)), new ClientConfig(), Scene.Sizes);
            }
        }

        [Test]
        private static void disposing_of_a_client_ends_the_wait_for_room()
        {
            Action<DuplexClient>[] waits =
            {
                client => client.Call(new byte[3000], Forever),
                client => client.SendRequest(new byte[3000]),
                client => client.AcquireRequestBuffer(3000),
            };
            foreach (Action<DuplexClient> wait in waits)
            {
                Action<DuplexClient> test = client =>
                {
                    client.SendRequest(new byte[3000]);
                    EndsWait(client, () => wait(client));
                };
                WithEachClient(test, new ClientConfig { SendTimeout = Forever }, new BufferConfig(0, 4096));
            }
        }

        [Test]
        private static void disposing_of_a_client_ends_its_reconnection()
        {
            string name = Channel.New();
            InPlaceDuplexServer server = Scene.Inverter(name);
            DuplexClient client = Scene.Client(name);
            server.Dispose();
            EndsWait(client, () => client.Reconnect(Forever));
        }

        [Test]
        private static void disposing_of_a_client_ends_the_wait_of_those_who_stand_behind_another_call()
        {
            WithEachClient(
                client =>
                {
                    var caller = new Thread(() => Check.Throws<ObjectDisposedException>(() => client.Call(new byte[1], Forever)));
                    caller.IsBackground = true;
                    caller.Start();
                    Thread.Sleep(20);
                    EndsWait(client, () => client.ReceiveResponse(Forever));
                    caller.Join();
                },
                new ClientConfig(), Scene.Sizes);
        }

        [Test]
        private static void disposing_of_a_client_of_two_buffers_ends_its_waits()
        {
            string name = Channel.New();
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.FromMilliseconds(50) };
            using (var release = new ManualResetEventSlim())
            using (MutableDuplexServer server = MutableDuplexServer.Create(name, config))
            {
                server.Start(frame => { release.Wait(Scene.Patience); });
                DuplexClient client = Scene.Client(name);
                EndsWait(client, () => client.Call(new byte[1], Forever));
                release.Set();
            }
        }

        [Test]
        private static void disposing_of_a_server_ends_the_wait_for_a_request()
        {
            string name = Channel.New();
            InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes);
            EndsWait(server, () => server.Receive(Forever));
            // When that has returned, the name is free.
            Scene.Inverter(name).Dispose();
        }

        [Test]
        private static void a_server_says_how_it_is_while_another_thread_receives()
        {
            string name = Channel.New();
            InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes);
            bool connected = false;
            bool running = true;
            var asking = new Thread(() =>
            {
                using (Scene.Client(name))
                {
                    connected = server.IsClientConnected;
                    running = server.IsRunning;
                }
            });
            asking.IsBackground = true;
            EndsWait(server, () =>
            {
                asking.Start();
                server.Receive(Forever);
            }, () => Check.That(asking.Join(Scene.Patience), "it does not say"));
            Check.That(connected && !running, "connected: " + connected + ", running: " + running);
        }

        [Test]
        private static void stopping_a_server_waits_for_nobody_who_receives()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            {
                Exception error = null;
                var receiver = new Thread(() => error = Check.Throws<ZeroBufferException>(() => server.Receive(Forever)));
                receiver.IsBackground = true;
                receiver.Start();
                Thread.Sleep(50);
                server.Stop();
                Check.That(receiver.Join(Scene.Patience), "the thread waits on");
                Check.That(error is ClosedException, "found " + error);
                Scene.Inverter(name).Dispose();
            }
        }

        [Test]
        private static void disposing_of_a_reader_ends_the_wait_for_a_frame()
        {
            string name = Channel.New();
            var reader = new Reader(name, Scene.Sizes);
            using (Writer.Connect(name, Scene.Patience))
            {
                EndsWait(reader, () => reader.ReadFrame(Forever));
            }
            new Reader(name, Scene.Sizes).Dispose();
        }

        [Test]
        private static void disposing_of_a_writer_ends_the_wait_for_room()
        {
            string name = Channel.New();
            using (new Reader(name, new BufferConfig(0, 4096)))
            {
                var writer = Writer.Connect(name, Scene.Patience, new WriterConfig { WriteTimeout = Forever });
                writer.WriteFrame(new byte[3000]);
                EndsWait(writer, () => writer.WriteFrame(new byte[3000]));
                Writer.Connect(name, TimeSpan.Zero).Dispose();
            }
        }
    }
}
