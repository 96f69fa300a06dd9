using System;
using System.Threading.Tasks;
using ZeroBuffer;

internal static class AsyncHandler
{
    private static async Task Main()
    {
        await using (var server = InPlaceDuplexServer.Create("csharp-async", BufferConfig.ForFrames(1000, 4)))
        {
            server.OnError += (sender, e) => Console.WriteLine(e.Exception.Message);
            server.Start(async (frame, cancellation) =>
            {
                if (frame.Length == 0)
                {
                    throw new ArgumentException("nothing to do"); // the client gets a HandlerFailedException
                }
                // Whatever it waits for: a database, another service. The token says that nobody wants the response any more.
                await Task.Delay(10, cancellation);
                frame.Data.Reverse(); // a span after the await, not across one
            });
            using (var client = DuplexClient.Connect("csharp-async"))
            {
                using (var response = await client.CallAsync(new byte[] { 1, 2, 3 }, TimeSpan.FromSeconds(5)))
                {
                    Console.WriteLine(response.Data[0]); // 3
                }
                try
                {
                    await client.CallAsync(ReadOnlyMemory<byte>.Empty, TimeSpan.FromSeconds(5));
                }
                catch (HandlerFailedException error)
                {
                    Console.WriteLine(error.HandlerMessage); // nothing to do
                }
            }
        }
    }
}
