using System;
using System.Diagnostics;
using System.IO;
using System.IO.Pipes;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using ZeroBuffer;

/// <summary>
/// What the benchmark asks for: a client that exchanges bytes with a server in each of several ways in turn, and says what one
/// exchange takes and how many bytes of garbage it leaves. The server adds one to byte 0.
/// </summary>
internal static class Measure
{
    private const int Small = 8;
    private const int Medium = 64 << 10;
    private const int Picture = 1920 * 1080 * 3;

    /// <summary>Calls at a time, where there are many.</summary>
    private const int Many = 64;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    internal static void Serve(string name)
    {
        BufferConfig ring = BufferConfig.ForFrames(Picture, 4);
        using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, ring))
        using (MutableDuplexServer two = MutableDuplexServer.Create(Two(name), new ServerConfig(ring) { Wait = WaitStrategy.Park }))
        using (var pipe = new NamedPipeServerStream(Pipe(name)))
        {
            server.Start(frame => { frame.Data[0]++; });
            two.Start(frame => { frame.Data[0]++; });
            new Thread(() => Serve(pipe)) { IsBackground = true }.Start();
            Console.WriteLine("ready");
            Console.In.ReadToEnd();
        }
    }

    private static string Two(string name) => name + "-two";

    private static string Pipe(string name) => name + "-pipe";

    /// <summary>The size, that many bytes, and so on.</summary>
    private static void Serve(NamedPipeServerStream pipe)
    {
        var data = new byte[Picture];
        var size = new byte[sizeof(int)];
        pipe.WaitForConnection();
        while (Read(pipe, size, size.Length))
        {
            int length = BitConverter.ToInt32(size, 0);
            Read(pipe, data, length);
            data[0]++;
            pipe.Write(data, 0, length);
        }
    }

    /// <summary>False at the end.</summary>
    private static bool Read(Stream stream, byte[] data, int length)
    {
        int there = 0;
        int more;
        while (there < length && (more = stream.Read(data, there, length - there)) > 0)
        {
            there += more;
        }
        return there == length;
    }

    /// <summary>Says ready, and begins when it is told to.</summary>
    internal static void Run(string name, TimeSpan budget)
    {
        var config = new ClientConfig { Channel = ChannelKind.TwoBuffers, Wait = WaitStrategy.Park };
        using (DuplexClient client = DuplexClient.Connect(name, Patience))
        using (DuplexClient two = DuplexClient.Connect(Two(name), Patience, config))
        using (var pipe = new NamedPipeClientStream(Pipe(name)))
        {
            pipe.Connect((int)Patience.TotalMilliseconds);
            Console.WriteLine("ready");
            Console.In.ReadLine();
            foreach (int size in new[] { Small, Medium, Picture })
            {
                var data = new byte[size];
                Time("call", size, budget, () => Call(client, data));
                Time("two", size, budget, () => Call(two, data));
                var message = BitConverter.GetBytes(size).Concat(data).ToArray();
                Time("pipe", size, budget, () =>
                {
                    pipe.Write(message, 0, message.Length);
                    Expect.That(Read(pipe, data, size) && data[0] == 1, "the answer is wrong");
                });
            }
            Time("async", Small, budget, done => CallAsync(client, 1, done));
            Time("many", Small, budget, done => CallAsync(client, Many, done));
        }
    }

    private static void Call(DuplexClient client, byte[] data)
    {
        data[0] = 0;
        using (Response response = client.Call(data, Patience))
        {
            Expect.That(response.Data[0] == 1, "the answer is wrong");
        }
    }

    /// <summary>How many calls there were until it was done.</summary>
    private static int CallAsync(DuplexClient client, int atOnce, Func<bool> done)
    {
        var data = new byte[Small];
        async Task<int> Loop()
        {
            int count = 0;
            for (; !done(); count++)
            {
                using (Response response = await client.CallAsync(data, Patience).ConfigureAwait(false))
                {
                    Expect.That(response.Data[0] == 1, "the answer is wrong");
                }
            }
            return count;
        }
        return Task.WhenAll(Enumerable.Range(0, atOnce).Select(_ => Loop())).GetAwaiter().GetResult().Sum();
    }

    private static void Time(string what, int size, TimeSpan budget, Action once)
    {
        Time(what, size, budget, done =>
        {
            int count = 0;
            for (; !done(); count++)
            {
                once();
            }
            return count;
        });
    }

    private static void Time(string what, int size, TimeSpan budget, Func<Func<bool>, int> run)
    {
        // Everything is compiled, and all memory was touched.
        var warm = Stopwatch.StartNew();
        run(() => warm.Elapsed > budget / 4);
        long before = GC.GetTotalAllocatedBytes(true);
        var since = Stopwatch.StartNew();
        int count = run(() => since.Elapsed > budget);
        double nanoseconds = since.Elapsed.TotalMilliseconds * 1e6 / count;
        double garbage = (double)(GC.GetTotalAllocatedBytes(true) - before) / count;
        Console.WriteLine(FormattableString.Invariant($"{what} {size} {nanoseconds:F1} {garbage:F1}"));
    }
}
