using System;
using System.Text;
using System.Threading;
using ZeroBuffer;

/// <summary>The server: a handler that does as byte 0 of the request says.</summary>
internal static class Server
{
    internal static void Serve(Options options)
    {
        var buffer = new BufferConfig(int.Parse(options["--metadata"]), long.Parse(options["--payload"]));
        var config = new ServerConfig(buffer) { Wait = options.Wait };
        if (options.IsInPlace)
        {
            config.Workers = int.Parse(options["--workers"] ?? "1");
            config.Metadata = Encoding.UTF8.GetBytes(options["--server-metadata"] ?? "");
            using (InPlaceDuplexServer server = InPlaceDuplexServer.Create(options.Channel, config))
            {
                server.Start(HandleInPlace);
                UntilTold(server);
            }
        }
        else
        {
            using (MutableDuplexServer server = MutableDuplexServer.Create(options.Channel, config))
            {
                server.Start(Handle);
                UntilTold(server);
            }
        }
    }

    /// <summary>Says ready, and stops when standard input ends.</summary>
    private static void UntilTold(DuplexServer server)
    {
        Console.WriteLine("ready");
        Console.In.ReadToEnd();
        server.Stop();
    }

    private static void HandleInPlace(Frame frame)
    {
        if (frame.Length == 0 || frame.Data[0] != 'M')
        {
            Handle(frame);
            return;
        }
        byte[] metadata = frame.Metadata;
        frame.Resize(metadata.Length);
        metadata.CopyTo(frame.Data);
    }

    private static void Handle(Frame frame)
    {
        Span<byte> data = frame.Data;
        switch (data.Length == 0 ? '\0' : (char)data[0])
        {
            case 'T':
                Work.Transform(data);
                break;
            case 'S':
                Thread.Sleep(200);
                Work.Transform(data);
                break;
            case 'F':
                throw new Exception("refused on request");
            case 'H':
                Work.Transform(data.Slice(0, data.Length / 2));
                Console.WriteLine("hanging");
                Thread.Sleep(60000);
                break;
            default:
                throw new Exception("there is no such request");
        }
    }
}
