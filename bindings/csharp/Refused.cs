using System;
using System.Threading.Tasks;
using ZeroBuffer;

/// <summary>Handlers that do not do what they seem to. The lines that end in "refused" must not compile.</summary>
internal static class Refused
{
    private static void InPlace(InPlaceDuplexServer server)
    {
        server.Start(async frame => await Task.Delay(10)); // refused
        server.Start(async frame => { await Task.Yield(); throw new Exception(); }); // refused
        server.Start(frame => frame.Data.ToArray()); // refused
        server.Start(Later); // refused
        server.Start(frame => frame.Data.Reverse());
        server.Start(frame => { throw new Exception(); });
        server.Start(async (frame, cancellation) => { await Task.Delay(10, cancellation); frame.Data.Reverse(); });
        server.Start(Now);
    }

    private static void Mutable(MutableDuplexServer server)
    {
        server.Start(async frame => await Task.Delay(10)); // refused
        server.Start(frame => frame.Data.ToArray()); // refused
        server.Start(Later); // refused
        server.Start(Now);
    }

    private static void Immutable(ImmutableDuplexServer server)
    {
        server.Start(async frame => await Task.Delay(10)); // refused
        server.Start(async frame => { await Task.Yield(); return new byte[1]; }); // refused
        server.Start(frame => new ArraySegment<byte>(new byte[1])); // refused
        server.Start(Later); // refused
        server.Start(frame => frame.Data.ToArray());
        server.Start(frame => frame.Data.CopyTo(frame.Reply((int)frame.Length)));
        server.Start(Now);
    }

    private static void Now(Frame frame)
    {
    }

    private static Task Later(Frame frame)
    {
        return Task.CompletedTask;
    }

    private static void Main()
    {
    }
}
