using System;
using System.Threading;
using System.Threading.Tasks;

namespace ZeroBuffer.Tests
{
    /// <summary>One object, and two threads at the same moment: ended by both, or ended by one and used by the other.</summary>
    internal static class RaceTests
    {
        private const int Rounds = 4000;

        /// <summary>
        /// Two threads that do something at the same moment, as often as is asked for. Each may find that the object has
        /// ended, and nothing else.
        /// </summary>
        private sealed class Pair : IDisposable
        {
            private readonly Thread _second;
            private Action _action;
            private bool _succeeded;
            private Exception _error;

            // Rounds in which both are ready, have begun, and have finished. Threads that sleep would wake up one after
            // the other, so these spin.
            private int _ready;
            private int _begun;
            private int _finished;

            internal Pair()
            {
                _second = new Thread(Run);
                _second.IsBackground = true;
                _second.Start();
            }

            private void Run()
            {
                for (int round = 1; ; round++)
                {
                    Volatile.Write(ref _ready, round);
                    Await(ref _begun, round);
                    if (_action == null)
                    {
                        return;
                    }
                    _succeeded = Try(_action, ref _error);
                    Volatile.Write(ref _finished, round);
                }
            }

            private static void Await(ref int reached, int round)
            {
                for (int looks = 1; Volatile.Read(ref reached) < round; looks++)
                {
                    if (looks % 1000 == 0)
                    {
                        Thread.Yield();
                    }
                }
            }

            /// <summary>How many of the two have succeeded.</summary>
            internal int Race(Action first, Action second)
            {
                int round = _finished + 1;
                _action = second;
                Await(ref _ready, round);
                Volatile.Write(ref _begun, round);
                Exception error = null;
                bool succeeded = Try(first, ref error);
                Await(ref _finished, round);
                error = error ?? _error;
                Check.That(error == null, "found " + error);
                return (succeeded ? 1 : 0) + (_succeeded ? 1 : 0);
            }

            private static bool Try(Action action, ref Exception error)
            {
                try
                {
                    action();
                    return true;
                }
                catch (ObjectDisposedException)
                {
                }
                catch (Exception failure)
                {
                    error = failure;
                }
                return false;
            }

            public void Dispose()
            {
                _action = null;
                Volatile.Write(ref _begun, int.MaxValue);
                _second.Join();
            }
        }

        [Test]
        private static void of_two_threads_that_answer_a_request_one_does()
        {
            RaceForRequest((first, second) =>
            {
                Check.Equal(1, second.Race(first.Respond, () => first.Fail("too late")));
            });
        }

        [Test]
        private static void a_request_may_be_disposed_while_another_thread_answers_it()
        {
            RaceForRequest((request, pair) => pair.Race(request.Respond, request.Dispose));
        }

        [Test]
        private static void a_request_that_is_dropped_fails_at_once_although_another_thread_looks_at_its_server()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            {
                bool done = false;
                var looking = new Thread(() =>
                {
                    while (!Volatile.Read(ref done))
                    {
                        GC.KeepAlive(server.IsClientConnected);
                    }
                });
                looking.IsBackground = true;
                looking.Start();
                try
                {
                    for (int round = 0; round < Rounds / 4; round++)
                    {
                        ulong sequence = client.SendRequest(new byte[1]);
                        server.Receive(Scene.Patience).Dispose();
                        Check.Throws<HandlerFailedException>(() => client.ReceiveResponseFor(sequence, Scene.Patience));
                    }
                }
                finally
                {
                    Volatile.Write(ref done, true);
                    looking.Join();
                }
            }
        }

        private static void RaceForRequest(Action<Request, Pair> race)
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            using (var pair = new Pair())
            {
                for (int round = 0; round < Rounds; round++)
                {
                    ulong sequence = client.SendRequest(new byte[1]);
                    Request request = server.Receive(Scene.Patience);
                    // In the server's hands, too.
                    if (round % 4 > 0)
                    {
                        request.Detach();
                    }
                    race(request, pair);
                    try
                    {
                        client.ReceiveResponseFor(sequence, Scene.Patience).Dispose();
                    }
                    catch (HandlerFailedException)
                    {
                    }
                }
            }
        }

        [Test]
        private static void of_two_threads_that_commit_a_buffer_one_does()
        {
            RaceForBuffer((buffer, pair) =>
            {
                ulong first = 0;
                ulong second = 0;
                Check.Equal(1, pair.Race(() => first = buffer.Commit(), () => second = buffer.Commit()));
                return first + second;
            });
        }

        [Test]
        private static void a_buffer_may_be_disposed_while_another_thread_commits_it()
        {
            RaceForBuffer((buffer, pair) =>
            {
                ulong sequence = 0;
                pair.Race(() => sequence = buffer.Commit(), buffer.Dispose);
                return sequence;
            });
        }

        /// <summary><paramref name="race"/> returns the number of the request; 0 if it was cancelled.</summary>
        private static void RaceForBuffer(Func<RequestBuffer, Pair, ulong> race)
        {
            string name = Channel.New();
            using (Scene.Inverter(name))
            using (DuplexClient client = Scene.Client(name))
            using (var pair = new Pair())
            {
                for (int round = 0; round < Rounds; round++)
                {
                    RequestBuffer buffer = client.AcquireRequestBuffer(16);
                    buffer.Data.Fill(7);
                    ulong sequence = race(buffer, pair);
                    if (sequence > 0)
                    {
                        using (Response response = client.ReceiveResponseFor(sequence, Scene.Patience))
                        {
                            Check.Equal((byte)248, response.Data[15]);
                        }
                    }
                }
            }
        }

        [Test]
        private static void a_frame_of_version_1_may_be_disposed_while_another_thread_commits_it()
        {
            string name = Channel.New();
            using (var reader = new Reader(name, Scene.Sizes))
            using (var writer = Writer.Connect(name, Scene.Patience))
            using (var pair = new Pair())
            {
                for (int round = 0; round < Rounds; round++)
                {
                    FrameBuffer buffer = writer.AcquireFrame(16);
                    ulong sequence = 0;
                    pair.Race(() => sequence = buffer.Commit(), buffer.Dispose);
                    if (sequence > 0)
                    {
                        Frame frame = reader.ReadFrame(Scene.Patience);
                        Check.Equal(sequence, frame.Sequence);
                        pair.Race(frame.Dispose, () => frame.ToArray());
                    }
                }
            }
        }

        [Test]
        private static void a_frame_may_be_in_use_on_another_thread_when_its_handler_ends()
        {
            string name = Channel.New();
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, Scene.Sizes))
            using (DuplexClient client = Scene.Client(name))
            {
                server.Start(frame =>
                {
                    // As a handler with a limit in time does, which leaves its work behind.
                    Task work = Task.Run(() => UseUntilItEnds(frame));
                    Thread.SpinWait((int)(frame.Sequence % 4) * 500);
                    Check.That(frame.Sequence % 2 == 0, "too slow");
                });
                for (int round = 0; round < Rounds; round++)
                {
                    try
                    {
                        client.Call(new byte[8], Scene.Patience).Dispose();
                    }
                    catch (HandlerFailedException)
                    {
                    }
                }
            }
        }

        private static void UseUntilItEnds(Frame frame)
        {
            try
            {
                while (true)
                {
                    frame.Resize(5);
                    frame.Resize(8);
                    GC.KeepAlive(frame.Metadata);
                }
            }
            catch (ObjectDisposedException)
            {
            }
        }

        [Test]
        private static void a_response_is_copied_whole_or_not_at_all_while_it_is_disposed()
        {
            const int Size = 1 << 22;
            using (var pair = new Pair())
            {
                for (int round = 0; round < 40; round++)
                {
                    string name = Channel.New();
                    using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, new BufferConfig(0, 2 * Size)))
                    {
                        server.Start(frame => frame.Data.Fill(7));
                        DuplexClient client = Scene.Client(name);
                        Response response = client.Call(new byte[Size], Scene.Patience);
                        byte[] copy = null;
                        pair.Race(() => copy = response.ToArray(), () =>
                        {
                            Thread.SpinWait(round * 1000);
                            response.Dispose();
                            client.Dispose();
                            server.Dispose();
                        });
                        Check.That(copy == null || new ReadOnlySpan<byte>(copy).IndexOf((byte)7) == 0, "no copy");
                        Check.That(copy == null || new ReadOnlySpan<byte>(copy).TrimStart((byte)7).IsEmpty, "bytes of others");
                    }
                }
            }
        }
    }
}
