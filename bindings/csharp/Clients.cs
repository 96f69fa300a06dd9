using System;
using ZeroBuffer;

internal static class Clients
{
    private static void Main()
    {
        var config = new ServiceConfig { RingSize = 1 << 20, MaxClients = 16, Workers = 2 };
        using (var service = Service.Create("csharp-service", config))
        {
            service.Start(frame =>
            {
                // A number from 1, the program's name, and what the system says of its process and user.
                Console.WriteLine("client " + frame.Client.Number);
                frame.Data.Reverse();
            });
            using (var first = DuplexClient.Connect("csharp-service"))
            using (var second = DuplexClient.Connect("csharp-service"))
            {
                second.Call(new byte[] { 1, 2, 3 }, TimeSpan.FromSeconds(5)).Dispose(); // client 2
                Console.WriteLine(service.Clients); // 2
            }
        }
    }
}
