using System;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Tests
{
    /// <summary>Services: any number of clients.</summary>
    internal static class ServiceTests
    {
        private static void With(ServiceConfig config, Action<string, Service> test)
        {
            string name = Channel.New();
            using (Service service = Service.Create(name, config))
            {
                test(name, service);
            }
        }

        private static int Inverted(DuplexClient client, int number)
        {
            using (Response response = client.Call(BitConverter.GetBytes(number), Scene.Patience))
            {
                return BitConverter.ToInt32(response.ToArray(), 0);
            }
        }

        [Test]
        private static void a_service_has_several_clients_at_once_and_says_who_asks()
        {
            With(new ServiceConfig { Workers = 2 }, (name, service) =>
            {
                var seen = new ulong[3];
                service.Start(frame =>
                {
                    ClientIdentity client = frame.Client;
                    Check.Equal(Process.GetCurrentProcess().Id, client.ProcessId);
                    Check.That(client.Label.Length > 0, "it has no label");
                    seen[frame.Data[0]] = client.Number;
                    Scene.Invert(frame);
                });
                Check.Equal(0, service.Clients);
                DuplexClient[] clients = Enumerable.Range(0, 3).Select(_ => Scene.Client(name)).ToArray();
                for (int number = 0; number < 3; number++)
                {
                    Check.That(clients[number].IsInPlace, "it is in place");
                    Check.Equal(~number, Inverted(clients[number], number));
                }
                Check.Equal(3, service.Clients);
                Check.Equal(3, seen.Distinct().Count());
                Check.That(service.IsClientConnected && service.IsRunning, "it serves");
                clients[0].Dispose();
                Check.Eventually("one has ended", () => service.Clients == 2);
                Check.Equal(~1, Inverted(clients[1], 1));
                clients[1].Dispose();
                clients[2].Dispose();
                Check.Eventually("all have ended", () => service.Clients == 0);
            });
        }

        [Test]
        private static void the_client_of_a_channel_has_no_identity()
        {
            string name = Channel.New();
            ClientIdentity found = null;
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            {
                server.Start(frame => { found = frame.Client; });
                client.Call(new byte[1], Scene.Patience).Dispose();
            }
            Check.That(found == null, "found " + found);
        }

        [Test]
        private static void a_client_with_long_requests_leaves_a_handler_to_the_others()
        {
            With(new ServiceConfig { Workers = 2, HandlersPerClient = 1 }, (name, service) =>
            {
                using (var started = new SemaphoreSlim(0))
                using (var release = new SemaphoreSlim(0))
                using (DuplexClient greedy = Scene.Client(name))
                using (DuplexClient other = Scene.Client(name))
                {
                    service.Start(frame =>
                    {
                        if (frame.Length == 1)
                        {
                            started.Release();
                            release.Wait();
                        }
                    });
                    ulong[] sent = { greedy.SendRequest(new byte[1]), greedy.SendRequest(new byte[1]) };
                    Check.That(started.Wait(Scene.Patience), "the first one is started");
                    other.Call(new byte[2], Scene.Patience).Dispose();
                    Check.Equal(0, started.CurrentCount);
                    release.Release(2);
                    foreach (ulong number in sent)
                    {
                        greedy.ReceiveResponseFor(number, Scene.Patience).Dispose();
                    }
                }
            });
        }

        [Test]
        private static void a_service_has_the_limits_and_metadata_of_its_configuration()
        {
            var config = new ServiceConfig
            {
                RingSize = 1 << 16,
                MetadataSize = 64,
                MaxClients = 1,
                Metadata = Encoding.UTF8.GetBytes("inverts"),
            };
            With(config, (name, service) =>
            {
                service.Start(Scene.Invert);
                using (DuplexClient client = Scene.Client(name, new ClientConfig { Metadata = new byte[] { 7 } }))
                {
                    Check.Equal("inverts", Encoding.UTF8.GetString(client.ServerMetadata));
                    Check.That(client.MaxRequestSize <= 1 << 16, "the ring has room for " + client.MaxRequestSize);
                    Check.Throws<BusyException>(() => DuplexClient.Connect(name, TimeSpan.Zero));
                }
            });
            Check.Throws<ArgumentOutOfRangeException>(() => Service.Create(Channel.New(), new ServiceConfig { MaxClients = 0 }));
            Check.Throws<ArgumentOutOfRangeException>(() => Service.Create(Channel.New(), new ServiceConfig { RingSize = -1 }));
        }

        [Test]
        private static void services_of_two_processes_share_a_name_and_one_lives_on_when_the_other_is_killed()
        {
            With(null, (name, service) =>
            {
                service.Start(Scene.Invert);
                using (Process other = Runner.Begin(nameof(ServeService), name))
                {
                    try
                    {
                        Check.Equal("ready", other.StandardOutput.ReadLine());
                        int own = Process.GetCurrentProcess().Id;
                        DuplexClient[] clients = Enumerable.Range(0, 4).Select(_ => Scene.Client(name)).ToArray();
                        // A client goes to the server that has fewer.
                        Check.Equal(2, service.Clients);
                        other.Kill();
                        other.WaitForExit();
                        int served = clients.Count(IsServed);
                        Check.Equal(2, served);
                        using (DuplexClient next = Scene.Client(name))
                        {
                            Check.Equal(~5, Inverted(next, 5));
                        }
                        foreach (DuplexClient client in clients)
                        {
                            client.Dispose();
                        }
                    }
                    finally
                    {
                        other.Kill();
                        other.WaitForExit();
                    }
                }
            });
        }

        private static bool IsServed(DuplexClient client)
        {
            try
            {
                return Inverted(client, 1) == ~1;
            }
            catch (PeerDiedException)
            {
                return false;
            }
        }

        [Test]
        private static void clients_of_several_processes_call_a_service_at_the_same_time()
        {
            With(new ServiceConfig { Workers = 2 }, (name, service) =>
            {
                service.Start(async (frame, _) =>
                {
                    await Task.Yield();
                    Scene.Invert(frame);
                });
                Process[] callers = Enumerable.Range(0, 3).Select(_ => Runner.Begin(nameof(CallService), name)).ToArray();
                foreach (Process caller in callers)
                {
                    using (caller)
                    {
                        Check.Equal("served", caller.StandardOutput.ReadLine());
                        Check.That(caller.WaitForExit((int)Scene.Patience.TotalMilliseconds), "it does not end");
                        Check.Equal(0, caller.ExitCode);
                    }
                }
                Check.Eventually("all have ended", () => service.Clients == 0);
            });
        }

        /// <summary>In a process of its own.</summary>
        [Program]
        private static void ServeService(string name)
        {
            using (Service service = Service.Create(name))
            {
                service.Start(Scene.Invert);
                Console.WriteLine("ready");
                Thread.Sleep(Timeout.Infinite);
            }
        }

        /// <summary>In a process of its own.</summary>
        [Program]
        private static void CallService(string name)
        {
            using (DuplexClient client = Scene.Client(name))
            {
                for (int number = 0; number < 500; number++)
                {
                    Check.Equal(~number, Inverted(client, number));
                }
            }
            Console.WriteLine("served");
        }

        [Test]
        private static void a_service_starts_beside_no_channel_of_its_name()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            {
                Check.Throws<AlreadyRunningException>(() => Service.Create(name));
            }
        }

        [Test]
        private static void a_client_says_what_it_is_called_and_how_much_room_it_needs()
        {
            string directory = Path.Combine(Runner.RuntimeDirectory, "of clients");
            With(new ServiceConfig { Directory = directory, RingSize = 1 << 16 }, (name, service) =>
            {
                string label = null;
                service.Start(frame => { label = frame.Client.Label; });
                var config = new ClientConfig { Directory = directory, Label = "camera \u00e9", RingSize = 1 << 20 };
                using (DuplexClient client = Scene.Client(name, config))
                {
                    client.Call(new byte[1 << 17], Scene.Patience).Dispose();
                    Check.Equal("camera \u00e9", label);
                }
                using (DuplexClient client = Scene.Client(name, new ClientConfig { Directory = directory }))
                {
                    Check.Throws<ZeroBufferException>(() => client.Call(new byte[1 << 17], Scene.Patience));
                }
                config.RingSize = 0;
                Check.Throws<ArgumentOutOfRangeException>(() => Scene.Client(name, config));
            });
        }

        [Test]
        private static void a_service_is_where_its_configuration_says()
        {
            string directory = Path.Combine(Runner.RuntimeDirectory, "elsewhere");
            With(new ServiceConfig { Directory = directory }, (name, service) =>
            {
                Check.Equal(1, Directory.GetFiles(Path.Combine(directory, name)).Length);
                Check.Throws<NotRunningException>(() => DuplexClient.Connect(name, TimeSpan.Zero));
            });
        }
    }
}
