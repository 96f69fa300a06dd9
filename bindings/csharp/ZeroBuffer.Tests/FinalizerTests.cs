using System;
using System.Threading;

namespace ZeroBuffer.Tests
{
    /// <summary>Finalizers have no order, and are not to be kept waiting.</summary>
    internal static class FinalizerTests
    {
        private static int _disposed;
        private static Exception _error;

        /// <summary>What users write: an object whose finalizer disposes of what it owns.</summary>
        private sealed class Owner
        {
            private readonly IDisposable _owned;

            internal Owner(IDisposable owned)
            {
                _owned = owned;
            }

            ~Owner()
            {
                try
                {
                    _owned.Dispose();
                    Interlocked.Increment(ref _disposed);
                }
                catch (Exception error)
                {
                    _error = error;
                }
            }
        }

        private static void CheckAllDisposed(int expected)
        {
            Check.Eventually("the finalizers", () =>
            {
                Scene.Collect();
                return Volatile.Read(ref _disposed) == expected || _error != null;
            });
            Check.That(_error == null, "a finalizer failed: " + _error);
            _disposed = 0;
        }

        [Test]
        private static void a_users_finalizer_may_dispose_of_a_client_and_what_came_from_it()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            {
                for (int round = 0; round < 100; round++)
                {
                    Scene.Elsewhere(() =>
                    {
                        DuplexClient client = Scene.Client(name);
                        for (int call = 0; call < 10; call++)
                        {
                            GC.KeepAlive(new Owner(client.Call(new byte[9], Scene.Patience)));
                        }
                        GC.KeepAlive(new Owner(client.AcquireRequestBuffer(9)));
                        GC.KeepAlive(new Owner(client));
                    });
                    CheckAllDisposed(12);
                }
            }
        }

        [Test]
        private static void what_a_users_finalizer_has_disposed_of_is_no_later_responses()
        {
            string name = Channel.New();
            using (Scene.Inverter(name, BufferConfig.ForFrames(3000, 2)))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = TimeSpan.Zero }))
            {
                for (int round = 0; round < 20; round++)
                {
                    Scene.Elsewhere(() => GC.KeepAlive(new Owner(client.Call(new byte[3000], Scene.Patience))));
                    CheckAllDisposed(1);
                    // Nothing but a finalizer can find this one.
                    Scene.Elsewhere(() => GC.KeepAlive(client.Call(new byte[3000], Scene.Patience)));
                    Scene.Collect();
                    using (Response one = client.Call(new byte[3000], Scene.Patience))
                    using (Response other = client.Call(new byte[3000], Scene.Patience))
                    {
                        Check.Equal(3000L, one.Length + other.Length - 3000);
                    }
                }
            }
        }

        [Test]
        private static void a_users_finalizer_may_dispose_of_a_server_or_of_its_request()
        {
            foreach (bool ofServer in new[] { true, false })
            {
                for (int round = 0; round < 10; round++)
                {
                    Scene.Elsewhere(() =>
                    {
                        for (int server = 0; server < 20; server++)
                        {
                            ForgetServer(ofServer, server % 2 == 0);
                        }
                    });
                    CheckAllDisposed(20);
                }
            }
            Check.Eventually("everything is closed", () =>
            {
                Scene.Collect();
                return Channel.Objects().Length == 0;
            });
        }

        private static void ForgetServer(bool ofServer, bool detached)
        {
            string name = Channel.New();
            var config = new ServerConfig(new BufferConfig(0, 4096)) { StopTimeout = TimeSpan.FromMilliseconds(1) };
            InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, config);
            DuplexClient client = Scene.Client(name);
            client.SendRequest(new byte[1]);
            Request request = server.Receive(Scene.Patience);
            if (detached)
            {
                request.Detach();
            }
            GC.KeepAlive(new Owner(ofServer ? (IDisposable)server : request));
        }

        [Test]
        private static void other_finalizers_do_not_wait_for_a_forgotten_server_to_stop()
        {
            string name = Channel.New();
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.FromMinutes(10) };
            DuplexClient client = null;
            Scene.Elsewhere(() =>
            {
                InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, config);
                client = Scene.Client(name);
                client.SendRequest(new byte[1]);
                // It waits for the client to read this.
                server.Receive(Scene.Patience).Respond();
            });
            GC.Collect();
            Scene.Elsewhere(() => GC.KeepAlive(new Owner(new ManualResetEvent(false))));
            Check.Eventually("the other finalizer", () =>
            {
                GC.Collect();
                return Volatile.Read(ref _disposed) == 1;
            });
            _disposed = 0;
            client.ReceiveResponse(Scene.Patience).Dispose();
            client.Dispose();
            Check.Eventually("the server is closed", () => Channel.Objects().Length == 0);
        }

        [Test]
        private static void a_client_goes_on_when_a_buffer_of_its_own_was_forgotten()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = TimeSpan.FromMilliseconds(5) }))
            {
                Scene.Elsewhere(() => GC.KeepAlive(client.AcquireRequestBuffer(10)));
                Check.Throws<FullException>(() => client.AcquireRequestBuffer(10));
                Scene.Collect();
                client.AcquireRequestBuffer(10).Dispose();
            }
        }

        [Test]
        private static void a_buffer_that_is_forgotten_during_a_call_is_abandoned_after_it()
        {
            string name = Channel.New();
            using (var release = new ManualResetEventSlim())
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            using (var calling = new ManualResetEventSlim())
            {
                server.Start(frame =>
                {
                    calling.Set();
                    release.Wait(Scene.Patience);
                });
                ulong sequence = client.SendRequest(new byte[1]);
                Scene.Elsewhere(() => GC.KeepAlive(client.AcquireRequestBuffer(10)));
                var caller = new Thread(() => client.ReceiveResponseFor(sequence, Scene.Patience).Dispose());
                caller.Start();
                Check.That(calling.Wait(Scene.Patience), "the handler is not called");
                Scene.Collect();
                release.Set();
                caller.Join();
                client.AcquireRequestBuffer(10).Dispose();
            }
        }
    }
}
