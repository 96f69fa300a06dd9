using System;
using System.Linq;
using System.Text;
using System.Threading;

namespace ZeroBuffer.Tests
{
    /// <summary>Version 1's reader and writer.</summary>
    internal static class BufferTests
    {
        [Test]
        private static void threads_that_write_to_a_full_buffer_take_their_turns()
        {
            string name = Channel.New();
            using (var reader = new Reader(name, new BufferConfig(0, 4096)))
            using (Writer writer = Writer.Connect(name, Scene.Patience, new WriterConfig { WriteTimeout = Timeout.InfiniteTimeSpan }))
            {
                Thread[] threads = Enumerable.Range(0, 3).Select(_ => new Thread(() =>
                {
                    for (int round = 0; round < 3; round++)
                    {
                        writer.WriteFrame(new byte[3000]);
                    }
                })).ToArray();
                Array.ForEach(threads, thread => thread.Start());
                for (ulong sequence = 1; sequence <= 9; sequence++)
                {
                    // One waits for room meanwhile, and the others for that one.
                    Thread.Sleep(20);
                    using (Frame frame = reader.ReadFrame(Scene.Patience))
                    {
                        Check.Equal(sequence, frame.Sequence);
                    }
                }
                Array.ForEach(threads, thread => thread.Join());
            }
        }

        [Test]
        private static void frames_are_read_as_they_were_written()
        {
            string name = Channel.New();
            using (var reader = new Reader(name, Scene.Sizes))
            {
                Check.Equal(name, reader.Name);
                Exception none = Check.Throws<WriterDeadException>(() => reader.ReadFrame(TimeSpan.Zero)).InnerException;
                Check.That(none is NotConnectedYetException, "it is not there yet: " + none);
                using (var writer = Writer.Connect(name, Scene.Patience))
                {
                    Check.Equal(name, writer.Name);
                    Check.That(reader.IsWriterConnected() && writer.IsReaderConnected(), "both are there");
                    writer.SetMetadata(Encoding.UTF8.GetBytes("rgb24"));
                    Exception twice = Check.Throws<InvalidOperationException>(() => writer.SetMetadata(new byte[1])).InnerException;
                    Check.That(twice is MetadataAlreadyWrittenException, "it is there: " + twice);
                    Check.Equal(1ul, writer.WriteFrame(new byte[] { 1, 2, 3 }));
                    using (FrameBuffer buffer = writer.AcquireFrame(2))
                    {
                        Check.Equal(2L, buffer.Length);
                        Check.Throws<ClaimOpenException>(() => writer.WriteFrame(new byte[1]));
                        new byte[] { 4, 5 }.CopyTo(buffer.Data);
                        Check.Equal(2ul, buffer.Commit());
                    }
                    writer.AcquireFrame(9).Dispose();
                    using (Frame first = reader.ReadFrame(Scene.Patience))
                    using (Frame second = reader.ReadFrame(Scene.Patience))
                    {
                        Check.Bytes(new byte[] { 1, 2, 3 }, first.Data);
                        Check.Bytes(new byte[] { 4, 5 }, second.Data);
                        Check.Equal(1ul, first.Sequence);
                        Check.Equal(2ul, second.Sequence);
                    }
                    Check.Bytes(Encoding.UTF8.GetBytes("rgb24"), reader.GetMetadata());
                    Check.That(!reader.ReadFrame(TimeSpan.Zero).IsValid, "there are no more");
                    Check.Throws<EmptyFrameException>(() => writer.WriteFrame(new byte[0]));
                    Check.Throws<TooLargeException>(() => writer.WriteFrame(new byte[1 << 20]));
                    Check.Throws<BusyException>(() => Writer.Connect(name, TimeSpan.Zero));
                }
                Exception closed = Check.Throws<WriterDeadException>(() => reader.ReadFrame(Scene.Patience)).InnerException;
                Check.That(closed is PeerClosedException, "it was closed: " + closed);
            }
            Check.Throws<NotRunningException>(() => Writer.Connect(name, TimeSpan.Zero));
        }

        [Test]
        private static void frames_outlive_their_reader()
        {
            string name = Channel.New();
            var reader = new Reader(name, Scene.Sizes);
            using (var writer = Writer.Connect(name, Scene.Patience, new WriterConfig { WriteTimeout = TimeSpan.FromSeconds(1) }))
            {
                writer.WriteFrame(new byte[] { 7 });
                Frame frame = reader.ReadFrame(Scene.Patience);
                FrameBuffer open = writer.AcquireFrame(1);
                reader.Dispose();
                reader.Dispose();
                Check.Throws<ObjectDisposedException>(() => reader.ReadFrame(TimeSpan.Zero));
                Check.Bytes(new byte[] { 7 }, frame.Data);
                frame.Dispose();
                Check.Equal(ErrorKind.PeerClosed, Check.Throws<ReaderDeadException>(() => open.Commit()).Kind);
            }
        }

        [Test]
        private static void a_frame_that_is_open_ends_with_its_writer()
        {
            string name = Channel.New();
            using (Reader.Create(name, new ReaderConfig(Scene.Sizes) { Liveness = Liveness.Pid, Wait = WaitStrategy.Park }))
            {
                var writer = Writer.Connect(name, Scene.Patience);
                FrameBuffer open = writer.AcquireFrame(1);
                writer.Dispose();
                Check.Throws<ObjectDisposedException>(() => open.Data.Clear());
                Check.Throws<ObjectDisposedException>(() => writer.WriteFrame(new byte[1]));
                Check.Throws<AlreadyRunningException>(() => new Reader(name, Scene.Sizes));
            }
        }
    }
}
