using Microsoft.Extensions.DependencyInjection;
using System;
using System.Threading.Tasks;
using ZeroBuffer;

/// <summary>Handlers of a host that do not do what they seem to. The lines that end in "refused" must not compile.</summary>
internal static class RefusedInHost
{
    private static void Add(IServiceCollection services)
    {
        services.AddZeroBufferServer("name", frame => Later(frame)); // refused
        services.AddZeroBufferServer("name", async frame => await Task.Delay(10)); // refused
        services.AddZeroBufferServer("name", frame => Later(frame), config => config.Workers = 2); // refused
        services.AddZeroBufferServer("name", Later); // refused
        services.AddZeroBufferServer("name", frame => frame.Data.ToArray()); // refused
        services.AddZeroBufferServer("name", frame => frame.Data.Reverse());
        services.AddZeroBufferServer("name", frame => { throw new Exception(); }, config => config.Workers = 2);
        services.AddZeroBufferServer("name", async (frame, cancellation) => await Task.Delay(10, cancellation));
        services.AddZeroBufferServer("name", Now);
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
