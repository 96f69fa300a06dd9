using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using System;
using System.Collections.Generic;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Threading;
using System.Threading.Tasks;
using ZeroBuffer.Extensions.Hosting;

namespace ZeroBuffer.Tests
{
    /// <summary>The example of docs/csharp-web.md, as it stands there.</summary>
    internal static class WebTests
    {
        private const int Megabyte = 1 << 20;

        [Program]
        private static void RunFilter(string name) => global::Program.Filter(name).Run();

        /// <summary>The site, with calls of a user to it.</summary>
        private sealed class Site : IDisposable
        {
            private readonly IHost _host;

            internal Site(string name)
            {
                // What each request does is not to be seen here.
                Environment.SetEnvironmentVariable("Logging__LogLevel__Default", "None");
                _host = global::Program.Web(name, "http://127.0.0.1:0");
                _host.Start();
                var addresses = _host.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>();
                User = new HttpClient { BaseAddress = new Uri(addresses.Addresses.Single()), Timeout = TimeSpan.FromMinutes(1) };
            }

            internal HttpClient User { get; }

            internal ZeroBufferClient Client => _host.Services.GetRequiredService<ZeroBufferClient>();

            internal Task<HttpResponseMessage> Post(byte[] body, CancellationToken cancellation = default) =>
                User.PostAsync("/invert", new ByteArrayContent(body), cancellation);

            public void Dispose()
            {
                User.Dispose();
                _host.StopAsync().GetAwaiter().GetResult();
                _host.Dispose();
            }
        }

        /// <summary>A body that no other request has, and whether a response is the answer to it.</summary>
        private static byte[] Body(int number)
        {
            var body = new byte[Megabyte];
            new Random(number).NextBytes(body);
            return body;
        }

        private static void CheckInverted(byte[] sent, byte[] found)
        {
            Check.Equal(sent.Length, found.Length);
            for (int index = 0; index < sent.Length; index++)
            {
                if (found[index] != (byte)~sent[index])
                {
                    throw new CheckFailed("byte " + index + " is another");
                }
            }
        }

        private static async Task CheckAnswered(HttpResponseMessage response)
        {
            if (response.StatusCode != HttpStatusCode.OK)
            {
                throw new CheckFailed(response.StatusCode + ": " + await response.Content.ReadAsStringAsync());
            }
        }

        [Test]
        private static void no_request_of_64_users_is_lost_while_the_filter_is_killed_and_restarted()
        {
            const int Users = 64;
            const int Each = 4;
            string name = Channel.New();
            int answered = 0;
            using (var site = new Site(name))
            {
                async Task Use(int user)
                {
                    byte[] body = Body(user);
                    for (int round = 0; round < Each; round++)
                    {
                        using (HttpResponseMessage response = await site.Post(body))
                        {
                            await CheckAnswered(response);
                            CheckInverted(body, await response.Content.ReadAsByteArrayAsync());
                        }
                        Interlocked.Increment(ref answered);
                    }
                }
                Task[] users = Enumerable.Range(0, Users).Select(user => Task.Run(() => Use(user))).ToArray();
                // All of them wait for the first filter.
                using (var filter = new ServerProcess(name, nameof(RunFilter)))
                {
                    foreach (Action end in new Action[] { filter.Kill, filter.Terminate, filter.Kill })
                    {
                        int before = Volatile.Read(ref answered);
                        Check.Eventually("requests are answered", () =>
                            Volatile.Read(ref answered) >= before + 40 || users.Any(user => user.IsFaulted));
                        end();
                        filter.Start();
                    }
                    Check.That(Task.WaitAll(users, Scene.Patience), "requests are not answered");
                }
                Check.Equal(Users * Each, answered);
            }
        }

        [Test]
        private static void what_a_killed_filter_had_begun_is_asked_again_but_not_for_ever()
        {
            foreach (int kills in new[] { 2, 3 })
            {
                string name = Channel.New();
                using (var site = new Site(name))
                using (var filter = new ServerProcess(name))
                {
                    Task<HttpResponseMessage> call = site.Post(new byte[ServerProcess.NeverAnswered]);
                    for (int kill = 1; kill <= kills; kill++)
                    {
                        filter.AwaitTaken();
                        filter.Kill();
                        if (kill < kills)
                        {
                            filter.Start();
                        }
                    }
                    using (Scene.Inverter(name))
                    {
                        Check.Equal(kills < 3 ? HttpStatusCode.OK : HttpStatusCode.ServiceUnavailable, HostingTests.Result(call).StatusCode);
                    }
                }
            }
        }

        [Test]
        private static void calls_that_wait_block_no_thread_of_the_pool()
        {
            const int Waiting = 100;
            string name = Channel.New();
            ThreadPool.GetMaxThreads(out int workers, out int others);
            // With as many threads as there may be at least, two that are blocked would be seen.
            Check.That(ThreadPool.SetMaxThreads(Environment.ProcessorCount, others), "the pool has another size");
            try
            {
                using (var site = new Site(name))
                {
                    var calls = new List<Task<HttpResponseMessage>>();
                    void Post() => calls.AddRange(Enumerable.Range(0, Waiting).Select(_ => site.Post(new byte[10])));
                    // Without a server, and then with one that does not answer.
                    Post();
                    Check.That(!site.User.GetAsync("/nowhere").GetAwaiter().GetResult().IsSuccessStatusCode, "the site answers");
                    using (InPlaceDuplexServer hangs = InPlaceDuplexServer.Create(name, Scene.Sizes))
                    {
                        DuplexClient client = HostingTests.Result(site.Client.ConnectAsync(Scene.Patience));
                        Post();
                        Check.Eventually("all calls are under way", () => client.InFlight == 2 * Waiting);
                        Check.Equal(HttpStatusCode.OK, site.User.GetAsync("/health").GetAwaiter().GetResult().StatusCode);
                        Check.That(!calls.Any(call => call.IsCompleted), "nobody has answered");
                        hangs.Start(Scene.Invert);
                        Check.That(Task.WaitAll(calls.ToArray(), Scene.Patience), "the calls do not end");
                        Check.That(calls.All(call => call.Result.StatusCode == HttpStatusCode.OK), "not all were answered");
                    }
                }
            }
            finally
            {
                ThreadPool.SetMaxThreads(workers, others);
            }
        }

        [Test]
        private static void other_pages_answer_while_64_users_wait_with_a_megabyte_each()
        {
            const int Users = 64;
            string name = Channel.New();
            // Room for most of them; the others wait for theirs.
            using (InPlaceDuplexServer filter = InPlaceDuplexServer.Create(name, new BufferConfig(4096, 50 << 20)))
            using (var site = new Site(name))
            {
                byte[][] bodies = Enumerable.Range(0, Users).Select(Body).ToArray();
                Task<HttpResponseMessage>[] calls = bodies.Select(body => site.Post(body)).ToArray();
                DuplexClient client = HostingTests.Result(site.Client.ConnectAsync(Scene.Patience));
                Check.Eventually("the ring is full", () => client.InFlight >= 40);
                for (int page = 0; page < 20; page++)
                {
                    Check.Equal(HttpStatusCode.OK, HostingTests.Result(site.User.GetAsync("/health")).StatusCode);
                    Check.Equal(HttpStatusCode.NotFound, HostingTests.Result(site.User.GetAsync("/nowhere")).StatusCode);
                }
                Check.That(!calls.Any(call => call.IsCompleted), "nobody has answered");
                filter.Start(Scene.Invert);
                for (int user = 0; user < Users; user++)
                {
                    using (HttpResponseMessage response = HostingTests.Result(calls[user]))
                    {
                        CheckAnswered(response).GetAwaiter().GetResult();
                        CheckInverted(bodies[user], HostingTests.Result(response.Content.ReadAsByteArrayAsync()));
                    }
                }
            }
        }

        [Test]
        private static void the_request_in_the_ring_is_cancelled_with_that_of_its_user()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (var site = new Site(name))
            using (var source = new CancellationTokenSource())
            {
                Task<HttpResponseMessage> call = site.Post(new byte[10], source.Token);
                using (Request request = server.Receive(Scene.Patience))
                {
                    Check.That(!request.IsCancelled, "the user waits");
                    source.Cancel();
                    Check.Eventually("the request is cancelled", () => request.IsCancelled);
                }
                Check.Throws<OperationCanceledException>(() => call.GetAwaiter().GetResult());
            }
        }

        [Test]
        private static void a_site_without_a_filter_is_unhealthy()
        {
            using (var site = new Site(Channel.New()))
            {
                Check.Equal(HttpStatusCode.ServiceUnavailable, site.User.GetAsync("/health").GetAwaiter().GetResult().StatusCode);
            }
        }
    }
}
