using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using ZeroBuffer;
using ZeroBuffer.DuplexChannel;
using ErrorEventArgs = ZeroBuffer.ErrorEventArgs;

/// <summary>
/// A program as users of the existing C# package of version 1 write them, with that package's names alone. Its lines begin with
/// "ok" or "WRONG". Arguments: all; serve NAME; call NAME. The peer in Python, peer.py, does the same with the existing Python
/// package.
/// </summary>
internal static unsafe class Program
{
    private const int Requests = 60;
    private const int Length = 30000;
    private const int Marked = 8;

    /// <summary>On this request the handler fails.</summary>
    private const int Bad = 5;
    private const string Metadata = "{\"camera\": 3}";
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);
    private static int _wrong;

    private static int Main(string[] arguments)
    {
        switch (arguments[0])
        {
            case "serve":
                Serve(arguments[1]);
                break;
            case "call":
                Call(arguments[1]);
                break;
            default:
                All("existing" + System.Diagnostics.Process.GetCurrentProcess().Id);
                break;
        }
        return _wrong == 0 ? 0 : 1;
    }

    private static void All(string name)
    {
        var server = new Thread(() => Serve(name));
        server.Start();
        Call(name);
        server.Join();
        Buffers(name + "b");
        Failures(name + "f");
    }

    /// <summary>Byte <paramref name="index"/> of request <paramref name="number"/>.</summary>
    private static byte Sent(int number, int index) => (byte)(number * 7 + index);

    /// <summary>The server marks the first bytes of the request itself, and answers with all bytes changed.</summary>
    private static byte Expected(int number, int index) => (byte)((index < Marked ? 1 : Sent(number, index)) ^ 0xA5);

    private static void Serve(string name)
    {
        var config = new BufferConfig { MetadataSize = 512, PayloadSize = 1024 * 1024 };
        var factory = new DuplexChannelFactory(NullLoggerFactory.Instance);
        var errors = new List<Exception>();
        var described = new List<string>();
        int requests = 0;
        using (IImmutableDuplexServer server = factory.CreateImmutableServer(name, config, Patience))
        {
            EventHandler<ErrorEventArgs> note = (sender, e) =>
            {
                lock (errors)
                {
                    errors.Add(e.Exception);
                }
            };
            server.OnError += note;
            Check("a server that was not started does not run", !server.IsRunning);
            server.Start(
                (Frame request, Writer responses) =>
                {
                    requests++;
                    if (requests == Bad)
                    {
                        responses.GetFrameBuffer(100, out ulong abandoned);
                        throw new ArgumentException("no picture");
                    }
                    new Span<byte>(request.Pointer, Marked).Fill(1);
                    Span<byte> response = responses.GetFrameBuffer(request.Size, out ulong number);
                    request.Span.CopyTo(response);
                    for (int index = 0; index < response.Length; index++)
                    {
                        response[index] ^= 0xA5;
                    }
                    responses.CommitFrame();
                },
                metadata => described.Add(Encoding.UTF8.GetString(metadata.ToArray())),
                ProcessingMode.SingleThread);
            for (var end = DateTime.UtcNow + Patience + Patience; server.IsRunning && DateTime.UtcNow < end;)
            {
                Thread.Sleep(10);
            }
            Check("the server ends when its client has ended", !server.IsRunning);
            Check("every request reached the handler", requests == Requests);
            Check("the handler was told the metadata first, and once", described.SequenceEqual(new[] { Metadata }));
            lock (errors)
            {
                Check("OnError had the handler's exception first", errors[0] is ArgumentException && errors[0].Message == "no picture");
                Check("OnError had the client's end last", errors.Count == 2 && errors[1] is WriterDeadException);
            }
            server.OnError -= note;
            server.Stop();
        }
    }

    private static void Call(string name)
    {
        Check("a client can wait for its server", DuplexChannelFactory.WaitExists(name, Patience));
        IDuplexChannelFactory factory = new DuplexChannelFactory();
        Check("so it can through the interface", factory.WaitExists(name, Patience));
        using (IDuplexClient client = factory.CreateClient(name))
        {
            Check("the server is there", client.IsServerConnected);
            client.SetMetadata(Encoding.UTF8.GetBytes(Metadata));
            int right = 0, unanswered = 0;
            bool numbered = true;
            for (int number = 1; number <= Requests; number++)
            {
                numbered &= Send(client, number) == (ulong)number;
                using (Frame response = client.ReceiveResponse(number == Bad ? TimeSpan.FromMilliseconds(500) : Patience))
                {
                    unanswered += response.IsValid ? 0 : 1;
                    right += response.IsValid && IsRight(number, response.Span) ? 1 : 0;
                }
            }
            Check("requests are numbered from 1", numbered);
            Check("a request whose handler failed has no response, and no other", unanswered == 1);
            Check("all responses are right", right == Requests - 1);
            Frame none = client.ReceiveResponse(TimeSpan.Zero);
            Check("without a response there is an invalid frame", !none.IsValid && none.Size == 0 && none.ToArray().Length == 0);
        }
    }

    private static ulong Send(IDuplexClient client, int number)
    {
        if (number % 3 == 0)
        {
            return client.SendRequest(Enumerable.Range(0, Length).Select(index => Sent(number, index)).ToArray());
        }
        ulong sent = client.AcquireRequestBuffer(Length, out Span<byte> buffer);
        if (number == 2)
        {
            Check("the server is there while a request is filled", client.IsServerConnected);
        }
        for (int index = 0; index < buffer.Length; index++)
        {
            buffer[index] = Sent(number, index);
        }
        client.CommitRequest();
        return sent;
    }

    private static bool IsRight(int number, ReadOnlySpan<byte> response)
    {
        bool right = response.Length == Length;
        for (int index = 0; right && index < Length; index++)
        {
            right = response[index] == Expected(number, index);
        }
        return right;
    }

    private static void Buffers(string name)
    {
        Check("a buffer that nobody makes is waited for in vain", !Reader.WaitExists(name, TimeSpan.FromMilliseconds(30)));
        using (var reader = new Reader(name, new BufferConfig(256, 16 * 1024), NullLogger<Reader>.Instance))
        using (var writer = new Writer(name, NullLogger<Writer>.Instance) { WriteTimeout = TimeSpan.FromSeconds(3) })
        {
            Check("both have the name", reader.Name == name && writer.Name == name);
            Check("both see each other", reader.IsWriterConnected(100) && writer.IsReaderConnected());
            Check("the write timeout is what was set", writer.WriteTimeout == TimeSpan.FromSeconds(3));
            Span<byte> metadata = writer.GetMetadataBuffer(4);
            metadata.Fill((byte)'m');
            writer.CommitMetadata();
            Check("metadata arrives", Encoding.UTF8.GetString(reader.GetMetadata().ToArray()) == "mmmm");
            writer.WriteFrame(Encoding.UTF8.GetBytes("first"));
            Span<byte> second = writer.GetFrameBuffer(3, out ulong number);
            second.Fill(2);
            writer.CommitFrame();
            Check("frames are numbered", number == 2);
            Layout(name);
            using (Frame frame = reader.ReadFrame(Patience))
            {
                FrameRef kept = frame.ToFrameRef();
                frame.GetMutableSpan()[0] = (byte)'F';
                Check("a frame can be edited", Encoding.UTF8.GetString(frame.ToArray()) == "First" && *frame.Pointer == 'F');
                Check("a reference sees the frame", kept.Size == 5 && kept.Sequence == 1 && kept.Span[0] == 'F' && kept.Data.Length == 5);
            }
            using (Frame frame = reader.ReadFrame())
            {
                Check("the next frame comes next", frame.Sequence == 2 && frame.Span.SequenceEqual(new byte[] { 2, 2, 2 }));
            }
            Check("then there is none", !reader.ReadFrame(TimeSpan.FromMilliseconds(1)).IsValid);
        }
    }

    /// <summary>Two frames of 5 and 3 bytes, which nobody has read, as they lie in the file.</summary>
    private static void Layout(string name)
    {
        byte[] file = System.IO.File.ReadAllBytes("/dev/shm/" + name);
        var header = MemoryMarshal.Read<OIEB>(file);
        Check("the header has its size", header.OiebSize == OIEB.SIZE && OIEB.SIZE == 128 && Marshal.SizeOf<ProtocolVersion>() == 4);
        Check("the version is 1", header.Version.IsCompatibleWith(new ProtocolVersion(1, 9)) && header.Version.Minor == 0);
        Check("the sizes are multiples", header.MetadataSize == 256 && header.PayloadSize % Constants.BlockAlignment == 0);
        Check("the metadata are counted", header.MetadataWrittenBytes == 12 && header.MetadataFreeBytes == 244);
        ulong used = (ulong)(2 * FrameHeader.SIZE + 5 + 3);
        Check("used bytes are counted", header.CalculateUsedBytes() == used && header.PayloadWritePos == used && header.PayloadReadPos == 0);
        Check("free bytes are", header.HasSpaceFor(header.PayloadSize - used) && !header.HasSpaceFor(header.PayloadSize - used + 1));
        Check("frames are counted", header.PayloadWrittenCount == 2 && header.PayloadReadCount == 0);
        ulong pid = (ulong)System.Diagnostics.Process.GetCurrentProcess().Id;
        Check("both processes are named", header.WriterPid == pid && header.ReaderPid == pid);
        int first = OIEB.SIZE + (int)header.MetadataSize;
        var frame = MemoryMarshal.Read<FrameHeader>(file.AsSpan(first));
        Check("a frame has a header", frame.PayloadSize == 5 && frame.SequenceNumber == 1 && !frame.IsWrapMarker);
        FrameCallback callback = (in Frame one) => Check("a callback is told of a frame", !one.IsValid);
        callback(Frame.Invalid);
    }

    private static void Failures(string name)
    {
        Fails<BufferNotFoundException>("there is no buffer", () => new Writer(name));
        Fails<BufferNotFoundException>("there is no server", () => new DuplexChannelFactory().CreateClient(name));
        Fails<ArgumentException>("there is no name", () => new DuplexChannelFactory().CreateClient(""));
        Fails<NotSupportedException>("there is no such mode", () => NewServer(name).Start((request, responses) => { }, null, ProcessingMode.ThreadPool));
        var reader = new Reader(name, new BufferConfig(256, 8192));
        Fails<ReaderAlreadyConnectedException>("there is a reader", () => new Reader(name, new BufferConfig(256, 8192)));
        Fails<WriterDeadException>("no writer has come", () => reader.ReadFrame(TimeSpan.FromMilliseconds(1)));
        var writer = new Writer(name);
        Fails<WriterAlreadyConnectedException>("there is a writer", () => new Writer(name));
        Fails<FrameTooLargeException>("the frame is larger than the buffer", () => writer.WriteFrame(new byte[10000]));
        Fails<ArgumentOutOfRangeException>("a timeout is not 0", () => writer.WriteTimeout = TimeSpan.Zero);
        writer.WriteTimeout = TimeSpan.FromMilliseconds(20);
        writer.WriteFrame(new byte[5000]);
        Fails<BufferFullException>("nobody reads", () => writer.WriteFrame(new byte[5000]));
        writer.SetMetadata(new byte[3]);
        Fails<InvalidOperationException>("metadata is set once", () => writer.SetMetadata(new byte[3]));
        writer.Dispose();
        Check("what was written can still be read", reader.ReadFrame().Size == 5000);
        Fails<WriterDeadException>("the writer has ended", () => reader.ReadFrame());
        using (var next = new Writer(name))
        {
            reader.Dispose();
            Fails<ReaderDeadException>("the reader has ended", () => next.WriteFrame(new byte[1]));
        }
        Fails<ObjectDisposedException>("it was disposed of", () => reader.ReadFrame());
        Check("what was disposed of is not connected", !reader.IsWriterConnected() && !writer.IsReaderConnected());
    }

    private static IImmutableDuplexServer NewServer(string name) => new DuplexChannelFactory().CreateImmutableServer(name, new BufferConfig());

    private static void Fails<T>(string why, Action action) where T : Exception
    {
        Exception found = null;
        try
        {
            action();
        }
        catch (Exception error)
        {
            found = error;
        }
        Check(why + ": " + typeof(T).Name + (found is T ? "" : ", but: " + found), found != null && found.GetType() == typeof(T));
    }

    private static void Check(string what, bool holds)
    {
        if (!holds)
        {
            Interlocked.Increment(ref _wrong);
        }
        Console.WriteLine((holds ? "ok    " : "WRONG ") + what);
    }
}
