using System;
using ZeroBuffer;

internal static class Example
{
    private static void Main()
    {
        using (var service = Service.Create("csharp-example", new ServiceConfig { RingSize = 1 << 20 }))
        {
            // This may be another process.
            service.Start(frame => frame.Data.Reverse());

            using (var client = DuplexClient.Connect("csharp-example"))
            using (var response = client.Call(new byte[] { 1, 2, 3 }, TimeSpan.FromSeconds(5)))
            {
                Console.WriteLine(response.Data[0]); // 3, read where the server has edited it
            }
        }
    }
}
