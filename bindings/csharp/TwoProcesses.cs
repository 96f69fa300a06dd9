using System;
using System.Text;
using ZeroBuffer;

internal static class TwoProcesses
{
    private static void Main(string[] arguments)
    {
        if (arguments[0] == "serve")
        {
            Serve();
        }
        else
        {
            Call();
        }
    }

    private static void Serve()
    {
        // Each client has a ring of this size, for its requests and their responses.
        var config = new ServiceConfig { RingSize = 1 << 20, Workers = 2 };
        config.Metadata = Encoding.UTF8.GetBytes("upper case");
        using (var service = Service.Create("csharp-two", config))
        {
            service.Start(frame =>
            {
                Span<byte> data = frame.Data;
                for (int index = 0; index < data.Length; index++)
                {
                    data[index] = (byte)char.ToUpperInvariant((char)data[index]);
                }
            });
            Console.WriteLine("serving until Enter is pressed");
            Console.ReadLine();
        }
    }

    private static void Call()
    {
        using (var client = DuplexClient.Connect("csharp-two", TimeSpan.FromSeconds(10)))
        {
            Console.WriteLine(Encoding.UTF8.GetString(client.ServerMetadata)); // upper case
            using (var response = client.Call(Encoding.UTF8.GetBytes("hello"), TimeSpan.FromSeconds(5)))
            {
                Console.WriteLine(Encoding.UTF8.GetString(response.Data)); // HELLO
            }
        }
    }
}
