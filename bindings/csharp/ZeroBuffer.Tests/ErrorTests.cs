using System;
using System.Linq;
using System.Reflection;
using System.Threading;

namespace ZeroBuffer.Tests
{
    /// <summary>One hierarchy of exceptions, with the facts.</summary>
    internal static class ErrorTests
    {
        [Test]
        private static void a_handlers_exception_reaches_the_client()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                var error = Check.Throws<HandlerFailedException>(() => client.Call(new byte[0], Scene.Patience));
                Check.Equal("empty", error.HandlerMessage);
                Check.Equal(1, error.Status);
                Check.Equal(1ul, error.Sequence);
                Check.Equal(ErrorKind.HandlerFailed, error.Kind);
                // The server lives on, and its thread too.
                client.Call(new byte[1], Scene.Patience).Dispose();
                Check.That(server.IsRunning, "the server runs");
            }
        }

        [Test]
        private static void a_failing_check_in_a_handler_is_not_the_end_of_the_process()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            {
                server.Start(frame =>
                {
                    string nothing = frame.Length > 0 ? null : "";
                    Check.Equal(0, nothing.Length);
                });
                var error = Check.Throws<HandlerFailedException>(() => client.Call(new byte[1], Scene.Patience));
                Check.That(error.HandlerMessage.Length > 0, "no message");
            }
        }

        [Test]
        private static void a_handler_that_is_async_is_refused()
        {
            Action<Frame> handler = async frame => await System.Threading.Tasks.Task.Yield();
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (MutableDuplexServer mutable = MutableDuplexServer.Create(name + "m", Scene.Sizes))
            using (ImmutableDuplexServer immutable = ImmutableDuplexServer.Create(name + "i", Scene.Sizes))
            {
                Check.Throws<ArgumentException>(() => server.Start(handler));
                Check.Throws<ArgumentException>(() => server.Start(Scene.Invert + handler));
                Check.Throws<ArgumentException>(() => mutable.Start(handler));
                Check.Throws<ArgumentException>(() => immutable.Start(handler));
                // None of them has been started.
                server.Start(Scene.Invert);
            }
        }

        [Test]
        private static void with_two_buffers_a_handlers_exception_ends_the_connection()
        {
            string name = Channel.New();
            using (MutableDuplexServer server = MutableDuplexServer.Create(name, Scene.Sizes))
            {
                server.Start(frame => { throw new InvalidOperationException("no"); });
                using (DuplexClient client = Scene.Client(name))
                {
                    var error = Check.Throws<PeerClosedException>(() => client.Call(new byte[1], Scene.Patience));
                    Check.Equal(RequestState.InDoubt, error.Request.State);
                }
            }
        }

        [Test]
        private static void a_bad_name_is_said_with_its_reason()
        {
            foreach (string bad in new[] { "", "a/b", "..", "a\0b", new string('x', 300), "ä" })
            {
                var error = Check.Throws<BadNameException>(() => DuplexClient.Connect(bad, TimeSpan.Zero));
                Check.Equal(ErrorKind.BadName, error.Kind);
                Check.That(error.Reason.Length > 0 && bad.StartsWith(error.Name), error.Name + ": " + error.Reason);
            }
            Check.Throws<ArgumentNullException>(() => DuplexClient.Connect(null));
        }

        [Test]
        private static void the_facts_are_those_of_the_error()
        {
            string name = Channel.New();
            var nobody = Check.Throws<NotRunningException>(() => DuplexClient.Connect(name, TimeSpan.Zero));
            Check.Equal(name, nobody.Name);
            Check.That(nobody.Message.Contains(name) && nobody.Found.Length > 0, nobody.Message);
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                Check.Equal(name, Check.Throws<BusyException>(() => DuplexClient.Connect(name, TimeSpan.Zero)).Name);
                var second = Check.Throws<AlreadyRunningException>(() => InPlaceDuplexServer.Create(name, Scene.Sizes));
                Check.Equal(name, second.Name);
                var large = Check.Throws<TooLargeException>(() => client.SendRequest(new byte[1 << 17]));
                Check.Equal(1ul << 17, large.Asked);
                Check.Equal((ulong)client.MaxRequestSize, large.Max);
                Check.Equal(77ul, Check.Throws<UnknownSequenceException>(() => client.ReceiveResponseFor(77, Scene.Patience)).Sequence);
                Check.Equal(0ul, Check.Throws<UnknownSequenceException>(() => client.ReceiveResponseFor(0, Scene.Patience)).Sequence);
                var late = Check.Throws<ChannelTimeoutException>(() => client.ReceiveResponse(TimeSpan.FromMilliseconds(3)));
                Check.Equal(TimeSpan.FromMilliseconds(3), late.Waited);
                Check.That(!client.Cancel(77), "nothing to cancel");
            }
        }

        [Test]
        private static void a_ring_that_is_full_says_how_full()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, new BufferConfig(0, 1024)))
            using (DuplexClient client = Scene.Client(name, new ClientConfig { SendTimeout = TimeSpan.Zero }))
            {
                client.SendRequest(new byte[900]);
                var full = Check.Throws<FullException>(() => client.SendRequest(new byte[900]));
                Check.Equal(1ul, full.InFlight);
                Check.That(full.Needed > full.Free, full.Message);
                Check.That(client.Cancel(1), "the request is cancelled");
            }
        }

        [Test]
        private static void bad_configurations_are_refused()
        {
            string name = Channel.New();
            Check.Throws<ArgumentOutOfRangeException>(() => new BufferConfig(-1, 0));
            Check.Throws<ArgumentNullException>(() => new ServerConfig(null));
            Check.Throws<ArgumentNullException>(() => MutableDuplexServer.Create(name, null));
            Check.Throws<BadConfigException>(() => InPlaceDuplexServer.Create(name, new ServerConfig(Scene.Sizes) { Workers = 100000 }));
            Check.Throws<ArgumentOutOfRangeException>(() => InPlaceDuplexServer.Create(name, new ServerConfig(Scene.Sizes) { Workers = 0 }));
            var wait = Check.Throws<BadConfigException>(
                () => InPlaceDuplexServer.Create(name, new ServerConfig(Scene.Sizes) { Wait = (WaitStrategy)9 }));
            Check.Equal("wait", wait.What);
            Check.Equal(9ul, wait.Asked);
            var metadata = new ServerConfig(new BufferConfig(64, 4096)) { Metadata = new byte[100] };
            Check.Throws<TooLargeException>(() => InPlaceDuplexServer.Create(name, metadata));
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            {
                Check.Throws<ArgumentOutOfRangeException>(() => client.Call(new byte[1], TimeSpan.FromSeconds(-3)));
                Check.Throws<ArgumentOutOfRangeException>(() => client.AcquireRequestBuffer(-1));
                Check.Throws<BadConfigException>(() => client.AcquireRequestBuffer(1, 0, 3));
                client.Call(new byte[1], Timeout.InfiniteTimeSpan).Dispose();
                client.Call(new byte[1], TimeSpan.MaxValue).Dispose();
            }
        }

        [Test]
        private static void a_server_that_has_closed_is_said_of_each_request()
        {
            string name = Channel.New();
            var config = new ServerConfig(Scene.Sizes) { StopTimeout = TimeSpan.FromMilliseconds(50) };
            InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, config);
            using (DuplexClient client = Scene.Client(name))
            {
                ulong sequence = client.SendRequest(new byte[1]);
                server.Dispose();
                var closed = Check.Throws<PeerClosedException>(() => client.ReceiveResponse(Scene.Patience));
                Check.Equal(sequence, closed.Request.Sequence);
                Check.Equal(RequestState.NotStarted, closed.Request.State);
                PeerGoneException gone = Check.Throws<PeerClosedException>(() => client.ReceiveResponse(Scene.Patience));
                Check.That(gone.Request == null, "it is about no request");
            }
        }

        [Test]
        private static void every_kind_has_an_exception_of_its_own()
        {
            Type[] types = typeof(ZeroBufferException).Assembly.GetTypes();
            foreach (ErrorKind kind in Enum.GetValues(typeof(ErrorKind)))
            {
                string start = kind == ErrorKind.Timeout ? "ChannelTimeout" : kind == ErrorKind.System ? "SystemCall" : kind.ToString();
                Type type = types.SingleOrDefault(one => one.Name == start + "Exception" && one.IsPublic);
                Check.That(type != null, "no exception for " + kind);
                Type expected = kind == ErrorKind.Timeout ? typeof(TimeoutException) : typeof(ZeroBufferException);
                Check.That(type.IsSubclassOf(expected), type + " stands elsewhere");
            }
        }
    }
}
