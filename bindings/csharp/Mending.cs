using System;
using System.Text;
using ZeroBuffer;

internal static class Mending
{
    private static void Main()
    {
        var second = TimeSpan.FromSeconds(1);
        var config = new ClientConfig { Connections = 2 };
        DuplexClient client;
        using (Serve())
        {
            client = DuplexClient.Connect("csharp-mending", 5 * second, config);
            Call(client, "hello");
        }
        using (client)
        using (Serve()) // the next one, and nobody has to know
        {
            Call(client, "again");
        }
    }

    private static IDisposable Serve()
    {
        // Most often a process of its own.
        var server = InPlaceDuplexServer.Create("csharp-mending", BufferConfig.ForFrames(1000, 4));
        server.Start(frame => frame.Data.Reverse());
        return server;
    }

    private static void Call(DuplexClient client, string text)
    {
        try
        {
            using (var response = client.Call(Encoding.UTF8.GetBytes(text), TimeSpan.FromSeconds(5)))
            {
                Console.WriteLine(Encoding.UTF8.GetString(response.Data)); // olleh, niaga
            }
        }
        catch (PeerGoneException lost) when (lost.Request?.State == RequestState.InDoubt)
        {
            Console.WriteLine("a server has begun it, and ended"); // whether to ask again is yours to say
        }
    }
}
