using Microsoft.Extensions.Logging;
using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using ZeroBuffer.DuplexChannel;

namespace ZeroBuffer.Tests
{
    /// <summary>What is logged, with what was thrown.</summary>
    internal sealed class Logbook : ILoggerFactory, ILogger
    {
        private readonly List<(LogLevel, string, Exception)> _entries = new List<(LogLevel, string, Exception)>();

        internal bool Fails;

        /// <summary>The messages of that level, with the exceptions' types.</summary>
        internal string[] At(LogLevel level)
        {
            lock (_entries)
            {
                return _entries.Where(entry => entry.Item1 == level)
                    .Select(entry => entry.Item2 + " " + entry.Item3?.GetType().Name).ToArray();
            }
        }

        public void Log<TState>(LogLevel level, EventId id, TState state, Exception error, Func<TState, Exception, string> format)
        {
            lock (_entries)
            {
                _entries.Add((level, format(state, error), error));
            }
            if (Fails)
            {
                throw new CheckFailed("the logger fails");
            }
        }

        public bool IsEnabled(LogLevel level) => true;

        public IDisposable BeginScope<TState>(TState state) => null;

        public ILogger CreateLogger(string category) => this;

        public void AddProvider(ILoggerProvider provider) { }

        public void Dispose() { }
    }

    /// <summary>Servers and clients of version 1 by the existing package's names, as far as its programs do not show it.</summary>
    internal static class PairTests
    {
        private static readonly BufferConfig Sizes = new BufferConfig(256, 1 << 16);

        private static void Echo(Frame request, Writer responses) => responses.WriteFrame(request.Span);

        private static void CheckEcho(IDuplexClient client)
        {
            client.SendRequest(new byte[] { 1, 2, 3 });
            using (Frame response = client.ReceiveResponse(Scene.Patience))
            {
                Check.Bytes(new byte[] { 1, 2, 3 }, response.Span);
            }
        }

        [Test]
        private static void whether_there_is_a_server_is_asked_of_the_interface_too()
        {
            string name = Channel.New();
            Check.That(!IImmutableDuplexServer.WaitExists(name, TimeSpan.Zero), "there is none");
            using (IImmutableDuplexServer server = new DuplexChannelFactory().CreateImmutableServer(name, Sizes))
            {
                server.Start(Echo);
                Check.That(IImmutableDuplexServer.WaitExists(name, Scene.Patience), "there is one");
            }
            Check.Throws<ArgumentException>(() => IImmutableDuplexServer.WaitExists("", TimeSpan.Zero));
        }

        [Test]
        private static void a_pair_server_serves_one_client_after_the_other_if_it_is_started_again()
        {
            string name = Channel.New();
            var factory = new DuplexChannelFactory();
            using (IImmutableDuplexServer server = factory.CreateImmutableServer(name, Sizes, Scene.Patience))
            {
                for (int round = 0; round < 3; round++)
                {
                    server.Start(Echo);
                    Check.Throws<InvalidOperationException>(() => server.Start(Echo));
                    using (IDuplexClient client = factory.CreateClient(name))
                    {
                        CheckEcho(client);
                        Check.Throws<WriterAlreadyConnectedException>(() => factory.CreateClient(name));
                    }
                    Check.Eventually("the server ends", () => !server.IsRunning);
                }
                server.Dispose();
                server.Dispose();
                Check.Throws<ObjectDisposedException>(() => server.Start(Echo));
            }
        }

        [Test]
        private static void a_pair_server_that_is_stopped_ends_what_its_client_waits_for()
        {
            string name = Channel.New();
            var factory = new DuplexChannelFactory();
            IImmutableDuplexServer server = factory.CreateImmutableServer(name, Sizes, Scene.Patience);
            server.Start(Echo);
            using (IDuplexClient client = factory.CreateClient(name))
            {
                CheckEcho(client);
                server.Stop();
                Check.That(!server.IsRunning, "it was stopped");
                Check.Throws<WriterDeadException>(() => client.ReceiveResponse(Scene.Patience));
                Check.Throws<ReaderDeadException>(() => client.SendRequest(new byte[1]));
                Check.That(!client.IsServerConnected, "there is no server");
            }
            Check.Throws<BufferNotFoundException>(() => factory.CreateClient(name));
        }

        [Test]
        private static void a_handler_may_stop_its_own_pair_server()
        {
            string name = Channel.New();
            var factory = new DuplexChannelFactory();
            using (IImmutableDuplexServer server = factory.CreateImmutableServer(name, Sizes, Scene.Patience))
            {
                server.Start((request, responses) =>
                {
                    Echo(request, responses);
                    server.Stop();
                });
                using (IDuplexClient client = factory.CreateClient(name))
                {
                    CheckEcho(client);
                    Check.Throws<WriterDeadException>(() => client.ReceiveResponse(Scene.Patience));
                }
                Check.Eventually("the names are removed", () => !Channel.HasObjects(name));
            }
        }

        [Test]
        private static void a_pair_server_without_a_client_ends_and_says_so()
        {
            var log = new Logbook();
            var errors = new List<Exception>();
            string name = Channel.New();
            using (IImmutableDuplexServer server =
                new DuplexChannelFactory(log).CreateImmutableServer(name, Sizes, TimeSpan.FromMilliseconds(30)))
            {
                server.OnError += (sender, e) => errors.Add(e.Exception);
                server.Start(Echo);
                Check.Eventually("the server ends", () => !server.IsRunning);
                Check.That(errors.Single() is TimeoutException, "no client has come: " + errors[0]);
                Check.That(log.At(LogLevel.Error).Single().EndsWith("TimeoutException", StringComparison.Ordinal), "it is logged");
                server.Stop();
            }
        }

        [Test]
        private static void what_a_pair_server_meets_is_logged_whatever_its_listeners_do()
        {
            var log = new Logbook { Fails = false };
            string name = Channel.New();
            var factory = new DuplexChannelFactory(log);
            using (IImmutableDuplexServer server = factory.CreateImmutableServer(name, Sizes, Scene.Patience))
            {
                server.OnError += (sender, e) => throw new CheckFailed("the listener fails");
                bool failed = false;
                server.Start((request, responses) =>
                {
                    if (!failed)
                    {
                        failed = true;
                        throw new FormatException("bad");
                    }
                    Echo(request, responses);
                });
                using (IDuplexClient client = factory.CreateClient(name))
                {
                    client.SendRequest(new byte[1]);
                    CheckEcho(client);
                }
                Check.Eventually("the server ends", () => !server.IsRunning);
            }
            string[] errors = log.At(LogLevel.Error);
            Check.That(errors[0].Contains(name) && errors[0].EndsWith("FormatException", StringComparison.Ordinal), errors[0]);
            Check.That(errors[1].EndsWith("CheckFailed", StringComparison.Ordinal), errors[1]);
            Check.That(log.At(LogLevel.Information).Single().EndsWith("WriterDeadException", StringComparison.Ordinal), "the client has ended");
        }

        [Test]
        private static void what_a_handler_throws_is_logged_and_told_and_the_server_goes_on()
        {
            var log = new Logbook();
            var errors = new List<Exception>();
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, new ServerConfig(Scene.Sizes) { Logger = log }))
            {
                server.OnError += (sender, e) =>
                {
                    Check.That(ReferenceEquals(sender, server), "it is said by the server");
                    errors.Add(e.Exception);
                    throw new CheckFailed("the listener fails");
                };
                server.Start(Scene.Invert);
                using (DuplexClient client = Scene.Client(name))
                {
                    Check.Throws<HandlerFailedException>(() => client.Call(new byte[0], Scene.Patience));
                    log.Fails = true;
                    Check.Throws<HandlerFailedException>(() => client.Call(new byte[0], Scene.Patience));
                    client.Call(new byte[1], Scene.Patience).Dispose();
                }
            }
            Check.That(errors.Count == 2 && errors.All(error => error is ArgumentException && error.StackTrace != null), "both are told");
            string[] logged = log.At(LogLevel.Error);
            Check.Equal(4, logged.Length);
            Check.That(logged[0] == "The handler of channel " + name + " failed ArgumentException", logged[0]);
        }

        [Test]
        private static void the_exceptions_of_version_1_can_be_made_by_programs()
        {
            Exception[] made =
            {
                new ZeroBufferException("text"), new ZeroBufferException("text", new Exception()), new BufferFullException(),
                new FrameTooLargeException(), new WriterDeadException(), new ReaderDeadException(),
                new BufferNotFoundException("text"), new BufferNotFoundException("name", true),
                new WriterAlreadyConnectedException(), new ReaderAlreadyConnectedException(),
            };
            foreach (Exception error in made)
            {
                Check.That(error is ZeroBufferException && error.Message.Length > 0, error.GetType().Name);
            }
        }
    }
}
