using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Hosting;
using System;
using System.Linq;
using System.Reflection;
using System.Threading;
using System.Threading.Tasks;
using ZeroBuffer.Extensions.Hosting;

namespace ZeroBuffer.Tests
{
    /// <summary>Servers and clients of a host.</summary>
    internal static class HostingTests
    {
        private static IHost Host(Action<IServiceCollection> add) => new HostBuilder().ConfigureServices(add).Build();

        private static bool Serves(string name)
        {
            try
            {
                DuplexClient.Connect(name, TimeSpan.Zero).Dispose();
                return true;
            }
            catch (NotRunningException)
            {
                return false;
            }
        }

        /// <summary>What a task ends with.</summary>
        internal static T Result<T>(Task<T> task)
        {
            Ends(task);
            return task.GetAwaiter().GetResult();
        }

        private static void Ends(Task task) =>
            Check.That(Task.WaitAny(new[] { task }, Scene.Patience) == 0, "the task does not end");

        private static void CheckInverts(ZeroBufferClient client, byte sent)
        {
            using (Response response = Result(client.CallAsync(new[] { sent }, Scene.Patience)))
            {
                Check.Bytes(new[] { (byte)~sent }, response.Data);
            }
        }

        [Test]
        private static void a_host_serves_while_it_runs_and_lets_handlers_finish()
        {
            string name = Channel.New();
            using (var begun = new ManualResetEventSlim())
            using (var release = new ManualResetEventSlim())
            using (IHost host = Host(services => services.AddZeroBufferServer(
                name, frame => { begun.Set(); release.Wait(); Scene.Invert(frame); }, config => config.StopTimeout = Scene.Patience)))
            {
                Check.That(!Serves(name), "it serves before it is started");
                host.Start();
                using (DuplexClient client = Scene.Client(name))
                {
                    Task<Response> call = client.CallAsync(new byte[] { 1 }, Scene.Patience);
                    Check.That(begun.Wait(Scene.Patience), "the handler does not run");
                    Task stopped = host.StopAsync();
                    Check.That(!stopped.Wait(50), "the handler has not finished");
                    release.Set();
                    using (Response response = Result(call))
                    {
                        Check.Bytes(new byte[] { 254 }, response.Data);
                    }
                    Ends(stopped);
                    Check.That(!Serves(name), "it serves after it was stopped");
                }
            }
        }

        [Test]
        private static void a_host_that_waits_no_longer_for_its_server_to_stop_ends_without_it()
        {
            string name = Channel.New();
            using (var begun = new ManualResetEventSlim())
            using (var release = new ManualResetEventSlim())
            {
                IHost host = Host(services => services.AddZeroBufferServer(
                    name, frame => { begun.Set(); release.Wait(); }, config => config.StopTimeout = Timeout.InfiniteTimeSpan));
                host.Start();
                using (DuplexClient client = Scene.Client(name))
                {
                    Task<Response> call = client.CallAsync(new byte[1], Scene.Patience);
                    Check.That(begun.Wait(Scene.Patience), "the handler does not run");
                    try
                    {
                        using (var source = new CancellationTokenSource(TimeSpan.FromMilliseconds(200)))
                        {
                            Ends(host.StopAsync(source.Token));
                        }
                        Ends(Task.Factory.StartNew(host.Dispose, TaskCreationOptions.LongRunning));
                        Check.That(!call.IsCompleted, "the handler has ended");
                    }
                    finally
                    {
                        release.Set();
                    }
                    Result(call).Dispose();
                }
                Check.Eventually("the server is closed", () => !Serves(name));
            }
        }

        [Test]
        private static void a_host_has_any_number_of_servers_with_handlers_of_both_kinds()
        {
            string[] names = { Channel.New(), Channel.New() };
            using (IHost host = Host(services => services
                .AddZeroBufferServer(names[0], Scene.Invert)
                .AddZeroBufferServer(names[1], async (frame, cancellation) =>
                {
                    await Task.Delay(1, cancellation);
                    Scene.Invert(frame);
                })
                .AddZeroBufferClient(names[0])
                .AddZeroBufferClient(names[1])))
            {
                host.Start();
                foreach (string name in names)
                {
                    ZeroBufferClient client = host.Services.GetZeroBufferClient(name);
                    Check.Equal(name, client.Name);
                    CheckInverts(client, 3);
                }
                Check.Throws<InvalidOperationException>(() => host.Services.GetZeroBufferClient("another"));
                Ends(host.StopAsync());
            }
        }

        [Test]
        private static void a_host_does_not_start_without_its_server()
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            using (IHost host = Host(services => services.AddZeroBufferServer(name, Scene.Invert)))
            {
                Check.Throws<AlreadyRunningException>(() => host.Start());
            }
        }

        [Test]
        private static void a_server_that_ends_by_itself_ends_the_host_and_one_that_the_host_stops_does_not()
        {
            string[] names = { Channel.New(), Channel.New() };
            using (IHost host = Host(services => services
                .AddZeroBufferServer(names[0], Scene.Invert)
                .AddZeroBufferServer(names[1], Scene.Invert)))
            {
                host.Start();
                CancellationToken ends = host.Services.GetRequiredService<IHostApplicationLifetime>().ApplicationStopping;
                ZeroBufferServer[] servers = host.Services.GetServices<IHostedService>().OfType<ZeroBufferServer>().ToArray();
                Ends(servers[0].StopAsync(CancellationToken.None));
                Check.That(!servers[0].IsRunning && !ends.IsCancellationRequested, "the host was asked to stop it");
                // Whatever ends it, it is not the host.
                FieldInfo service = typeof(ZeroBufferServer).GetField("_service", BindingFlags.Instance | BindingFlags.NonPublic);
                ((Service)service.GetValue(servers[1])).Stop();
                Check.That(ends.WaitHandle.WaitOne(Scene.Patience), "the host goes on without its server");
            }
        }

        [Test]
        private static void a_client_connects_when_it_is_used_and_mends_itself()
        {
            string name = Channel.New();
            using (IHost host = Host(services => services.AddZeroBufferClient(name)))
            {
                host.Start();
                var client = host.Services.GetRequiredService<ZeroBufferClient>();
                Check.Throws<NotRunningException>(() => Result(client.CallAsync(new byte[1], TimeSpan.FromMilliseconds(300))));
                using (var source = new CancellationTokenSource())
                {
                    Task<Response> cancelled = client.CallAsync(new byte[1], Timeout.InfiniteTimeSpan, source.Token);
                    source.Cancel();
                    Ends(cancelled);
                    Check.That(cancelled.IsCanceled, "it is cancelled");
                }
                Task<Response>[] early = Enumerable.Range(0, 3).Select(_ => client.CallAsync(new byte[1], Scene.Patience)).ToArray();
                using (Scene.Inverter(name))
                {
                    foreach (Task<Response> call in early)
                    {
                        Result(call).Dispose();
                    }
                    CheckInverts(client, 5);
                }
                Task<Response> between = client.CallAsync(new byte[1], Scene.Patience);
                using (Scene.Inverter(name))
                {
                    Result(between).Dispose();
                }
            }
        }

        [Test]
        private static void what_is_sent_before_there_is_a_server_is_copied_at_once()
        {
            string name = Channel.New();
            using (IHost host = Host(services => services.AddZeroBufferClient(name)))
            {
                var client = host.Services.GetRequiredService<ZeroBufferClient>();
                byte[] data = { 1 };
                Task<Response> call = client.CallAsync(data, Scene.Patience);
                data[0] = 2;
                using (Scene.Inverter(name))
                using (Response response = Result(call))
                {
                    Check.Bytes(new byte[] { 254 }, response.Data);
                }
            }
        }

        [Test]
        private static void a_client_connects_to_a_server_that_takes_its_time_to_accept()
        {
            // A ring of a GiB takes longer to make than an impatient client waits, again and again.
            const int Large = 1 << 30;
            string name = Channel.New();
            using (IHost host = Host(services => services.AddZeroBufferClient(name, config => config.RingSize = Large)))
            {
                var client = host.Services.GetRequiredService<ZeroBufferClient>();
                // The first attempt is over.
                Check.Throws<NotRunningException>(() => Result(client.CallAsync(new byte[1], TimeSpan.FromMilliseconds(300))));
                using (Service service = Service.Create(name, new ServiceConfig { RingSize = Large }))
                {
                    service.Start(Scene.Invert);
                    CheckInverts(client, 7);
                }
            }
        }

        [Test]
        private static void a_client_waits_until_its_server_has_memory_for_it()
        {
            string name = Channel.New();
            var config = new ServiceConfig { RingSize = 1 << 20, MaxBytes = 3 << 19 };
            using (Service service = Service.Create(name, config))
            using (IHost host = Host(services => services.AddZeroBufferClient(name)))
            {
                service.Start(Scene.Invert);
                DuplexClient other = Scene.Client(name);
                var client = host.Services.GetRequiredService<ZeroBufferClient>();
                Task<Response> call = client.CallAsync(new byte[1], Scene.Patience);
                Check.Throws<NoSpaceException>(() => Result(client.CallAsync(new byte[1], TimeSpan.FromMilliseconds(500))));
                Check.That(!call.IsCompleted, "it was refused for good");
                other.Dispose();
                Result(call).Dispose();
            }
        }

        /// <summary>The attempt to connect, once it has ended. What it has thrown is not looked at.</summary>
        private static Task<DuplexClient> AwaitAttempt(ZeroBufferClient client)
        {
            FieldInfo field = typeof(ZeroBufferClient).GetField("_connecting", BindingFlags.Instance | BindingFlags.NonPublic);
            var attempt = (Task<DuplexClient>)field.GetValue(client);
            Check.That(Task.WaitAny(new Task[] { attempt }, Scene.Patience) == 0, "it goes on to try");
            return attempt;
        }

        [Test]
        private static void a_client_that_connects_after_it_was_disposed_of_is_closed_and_nobody_waits_for_that()
        {
            string name = Channel.New();
            IHost host = Host(services => services.AddZeroBufferClient(name));
            var client = host.Services.GetRequiredService<ZeroBufferClient>();
            Task<Response> call = client.CallAsync(new byte[1], Timeout.InfiniteTimeSpan);
            // The first attempt is over, and the second one has begun.
            Check.Throws<NotRunningException>(() => Result(client.CallAsync(new byte[1], TimeSpan.FromMilliseconds(300))));
            host.Dispose();
            Check.Throws<ObjectDisposedException>(() => Result(call));
            using (Service service = Service.Create(name))
            {
                service.Start(Scene.Invert);
                Task<DuplexClient> attempt = AwaitAttempt(client);
                if (attempt.IsCompletedSuccessfully)
                {
                    Check.Eventually("it is closed", () => service.Clients == 0);
                    Check.Throws<ObjectDisposedException>(() => attempt.Result.IsServerConnected.ToString());
                }
            }
        }

        [Test]
        private static void calls_end_with_the_host_whether_or_not_there_was_a_server()
        {
            foreach (bool connects in new[] { true, false })
            {
                string name = Channel.New();
                IHost host = Host(services => services.AddZeroBufferClient(name));
                var client = host.Services.GetRequiredService<ZeroBufferClient>();
                if (connects)
                {
                    using (Scene.Inverter(name))
                    {
                        CheckInverts(client, 1);
                    }
                }
                Task<Response> call = client.CallAsync(new byte[1], Timeout.InfiniteTimeSpan);
                host.Dispose();
                Check.Throws<ObjectDisposedException>(() => Result(call));
                Check.Throws<ObjectDisposedException>(() => Result(client.CallAsync(new byte[1], Scene.Patience)));
            }
        }

        [Test]
        private static void a_client_that_waits_for_its_server_keeps_no_context_of_its_caller()
        {
            using (IHost host = Host(services => services.AddZeroBufferClient(Channel.New())))
            {
                var client = host.Services.GetRequiredService<ZeroBufferClient>();
                WeakReference context = null;
                Scene.Elsewhere(() =>
                {
                    context = new WeakReference(new object());
                    new AsyncLocal<object>().Value = context.Target;
                    Check.Throws<NotRunningException>(() => Result(client.CallAsync(new byte[1], TimeSpan.FromMilliseconds(200))));
                });
                Check.Eventually("the context is collected", () =>
                {
                    Scene.Collect();
                    return !context.IsAlive;
                });
            }
        }

        [Test]
        private static void a_server_may_be_waited_for_very_long()
        {
            string name = Channel.New();
            using (IHost host = Host(services => services.AddZeroBufferClient(name)))
            {
                var client = host.Services.GetRequiredService<ZeroBufferClient>();
                Task<DuplexClient>[] connecting = { client.ConnectAsync(TimeSpan.FromDays(30)), client.ConnectAsync(TimeSpan.MaxValue) };
                using (Scene.Inverter(name))
                {
                    foreach (Task<DuplexClient> one in connecting)
                    {
                        Check.That(Result(one).IsServerConnected, "it is not connected");
                    }
                    Result(client.CallAsync(new byte[1], TimeSpan.MaxValue)).Dispose();
                }
            }
        }

        [Test]
        private static void what_follows_a_connection_stops_no_other_call()
        {
            string name = Channel.New();
            using (IHost host = Host(services => services.AddZeroBufferClient(name)))
            using (var release = new ManualResetEventSlim())
            {
                var client = host.Services.GetRequiredService<ZeroBufferClient>();
                async Task Block()
                {
                    await client.ConnectAsync(Scene.Patience).ConfigureAwait(false);
                    release.Wait();
                }
                Task blocked = Block();
                Task<Response> call = client.CallAsync(new byte[1], Scene.Patience);
                using (Scene.Inverter(name))
                {
                    Result(call).Dispose();
                    release.Set();
                    Ends(blocked);
                }
            }
        }

        [Test]
        private static void a_connection_that_nobody_waits_for_is_no_unseen_error()
        {
            Exception unseen = null;
            EventHandler<UnobservedTaskExceptionEventArgs> see = (sender, arguments) => unseen = arguments.Exception;
            TaskScheduler.UnobservedTaskException += see;
            foreach (string name in new[] { Channel.New(), "no/such/name/", null })
            {
                Scene.Elsewhere(() =>
                {
                    ZeroBufferClient client;
                    using (IHost host = Host(services => services.AddZeroBufferClient(name ?? Channel.New())))
                    {
                        client = host.Services.GetRequiredService<ZeroBufferClient>();
                        if (name != null)
                        {
                            var late = Check.Throws<Exception>(() => Result(client.ConnectAsync(TimeSpan.Zero)));
                            Check.That(late is TimeoutException || late is ZeroBufferException, "found " + late);
                        }
                    }
                    AwaitAttempt(client);
                });
            }
            Scene.Collect();
            TaskScheduler.UnobservedTaskException -= see;
            Check.That(unseen == null, "found " + unseen);
        }

        [Test]
        private static void a_handler_that_nobody_would_wait_for_is_refused()
        {
            // For who does not see what the compiler says.
            System.Reflection.MethodInfo refused = typeof(ZeroBufferHosting).GetMethods()
                .Single(method => method.IsGenericMethod && method.Name == nameof(ZeroBufferHosting.AddZeroBufferServer));
            Func<Frame, Task> handler = frame => Task.CompletedTask;
            var error = Check.Throws<System.Reflection.TargetInvocationException>(() => refused
                .MakeGenericMethod(typeof(Task)).Invoke(null, new object[] { new ServiceCollection(), "name", handler, null }));
            Check.That(error.InnerException is ArgumentException, "found " + error.InnerException);
        }

        [Test]
        private static void a_name_that_is_wrong_is_said_at_each_use()
        {
            using (IHost host = Host(services => services.AddZeroBufferClient("no/such/name/")))
            {
                var client = host.Services.GetRequiredService<ZeroBufferClient>();
                for (int use = 0; use < 2; use++)
                {
                    Check.Throws<BadNameException>(() => Result(client.CallAsync(new byte[1], Scene.Patience)));
                }
            }
        }

        [Test]
        private static void the_health_check_asks_all_servers_and_clients()
        {
            string served = Channel.New();
            string called = Channel.New();
            using (IHost host = Host(services => services
                .AddLogging()
                .AddZeroBufferServer(served, Scene.Invert)
                .AddZeroBufferClient(called)
                .AddHealthChecks().AddZeroBuffer()))
            {
                var health = host.Services.GetRequiredService<HealthCheckService>();
                HealthReportEntry Now() => Result(health.CheckHealthAsync()).Entries["zerobuffer"];
                HealthReportEntry before = Now();
                Check.Equal(HealthStatus.Unhealthy, before.Status);
                Check.Equal("the server does not run", before.Data[served]);
                Check.That(before.Data.ContainsKey(called), "the client has no server");
                host.Start();
                using (Scene.Inverter(called))
                {
                    Check.Eventually("all is well", () => Now().Status == HealthStatus.Healthy);
                }
                Check.That(Now().Data.ContainsKey(called), "the client's server has ended");
                Check.That(!Now().Data.ContainsKey(served), "the server runs");
                using (Scene.Inverter(called))
                {
                    // Without any call: who sends them may wait for the check.
                    Check.Eventually("the client has found the next server", () => Now().Status == HealthStatus.Healthy);
                }
                Ends(host.StopAsync());
                Check.That(Now().Data.ContainsKey(served), "the server was stopped");
            }
        }
    }
}
