using System;
using System.Text;
using System.Threading;
using ZeroBuffer;

/// <summary>The server: a handler that does as byte 0 of the request says.</summary>
internal static class Server
{
    internal static void Serve(Options options)
    {
        long payload = long.Parse(options["--payload"]);
        int metadata = int.Parse(options["--metadata"]);
        if (options["--kind"] == "service")
        {
            var config = Configured(options, new ServiceConfig { RingSize = payload, MetadataSize = metadata });
            ServeInPlace(Service.Create(options.Channel, config));
        }
        else if (options.IsInPlace)
        {
            var config = Configured(options, new ServerConfig(new BufferConfig(metadata, payload)));
            ServeInPlace(InPlaceDuplexServer.Create(options.Channel, config));
        }
        else
        {
            var config = new ServerConfig(new BufferConfig(metadata, payload)) { Wait = options.Wait };
            using (MutableDuplexServer server = MutableDuplexServer.Create(options.Channel, config))
            {
                server.Start(Handle);
                UntilTold(server);
            }
        }
    }

    private static T Configured<T>(Options options, T config) where T : ServerConfigBase
    {
        config.Wait = options.Wait;
        config.Workers = int.Parse(options["--workers"] ?? "1");
        config.Metadata = Encoding.UTF8.GetBytes(options["--server-metadata"] ?? "");
        return config;
    }

    private static void ServeInPlace(InPlaceServer server)
    {
        using (server)
        {
            server.Start(HandleInPlace);
            UntilTold(server);
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
