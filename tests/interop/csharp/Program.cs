using System;
using System.Collections.Generic;
using System.Globalization;
using ZeroBuffer;

/// <summary>The peer in C#; see the README of tests/interop.</summary>
internal static class Program
{
    private static int Main(string[] arguments)
    {
        try
        {
            var options = new Options(arguments);
            if (options.Role == "server")
            {
                Server.Serve(options);
            }
            else if (options.Role == "measured")
            {
                Measure.Serve(options.Channel);
            }
            else if (options.Role == "measure")
            {
                Measure.Run(options.Channel, TimeSpan.FromMilliseconds(double.Parse(options.Case[0], CultureInfo.InvariantCulture)));
            }
            else
            {
                Client.Run(options);
            }
            return 0;
        }
        catch (Exception error)
        {
            Console.Error.WriteLine(error);
            return 1;
        }
    }
}

/// <summary>What the peer was told.</summary>
internal sealed class Options
{
    private readonly Dictionary<string, string> _named = new Dictionary<string, string>();

    internal Options(string[] arguments)
    {
        Role = arguments[0];
        Channel = arguments[1];
        for (int index = 2; index < arguments.Length; index++)
        {
            if (Case.Count == 0 && arguments[index].StartsWith("--", StringComparison.Ordinal))
            {
                _named[arguments[index]] = arguments[++index];
            }
            else
            {
                Case.Add(arguments[index]);
            }
        }
    }

    internal string Role { get; private set; }

    internal string Channel { get; private set; }

    internal readonly List<string> Case = new List<string>();

    internal string this[string name]
    {
        get { return _named.ContainsKey(name) ? _named[name] : null; }
    }

    /// <summary>A channel in place, or a service, which is used as such and found first.</summary>
    internal bool IsInPlace
    {
        get { return this["--kind"] != "two-buffers"; }
    }

    internal WaitStrategy Wait
    {
        get
        {
            switch (this["--wait"])
            {
                case "spin": return WaitStrategy.Spin;
                case "park": return WaitStrategy.Park;
                default: return WaitStrategy.SpinThenPark;
            }
        }
    }
}
