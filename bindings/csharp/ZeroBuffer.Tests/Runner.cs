using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Threading;

namespace ZeroBuffer.Tests
{
    /// <summary>A method that is a test; its name is a sentence that says what holds.</summary>
    [AttributeUsage(AttributeTargets.Method)]
    internal sealed class TestAttribute : Attribute
    {
    }

    /// <summary>A method that a process of its own runs, with one argument; see <see cref="Runner.Begin"/>.</summary>
    [AttributeUsage(AttributeTargets.Method)]
    internal sealed class ProgramAttribute : Attribute
    {
    }

    /// <summary>
    /// Runs all tests, or those whose name holds one of the arguments, one after the other. Each must end within a
    /// minute, and leave no name with its channel's name in it.
    /// </summary>
    internal static class Runner
    {
        private static readonly TimeSpan Limit = TimeSpan.FromSeconds(60);

        /// <summary>For a process that starts a server, and ends without stopping it.</summary>
        internal const string ServeAndExit = "serve-and-exit";
        internal const int Served = 7;


        /// <summary>Where the services of this process, and of those that it begins, are.</summary>
        internal static readonly string RuntimeDirectory = Path.Combine(Path.GetTempPath(), "zbcs" + Process.GetCurrentProcess().Id);
        private const string RuntimeVariable = "ZEROBUFFER_DIR";

        [DllImport("libc")]
        private static extern int setenv(string name, string value, int overwrite);

        private static int Main(string[] filters)
        {
            if (filters.Length == 2 && filters[0] == ServeAndExit)
            {
                Scene.Inverter(filters[1]);
                return Channel.HasObjects(filters[1]) ? Served : 1;
            }
            MethodInfo program = Marked<ProgramAttribute>().SingleOrDefault(method => method.Name == filters.FirstOrDefault());
            if (program != null)
            {
                program.Invoke(null, new object[] { filters[1] });
                return 0;
            }
            Directory.CreateDirectory(RuntimeDirectory);
            // The one is for the native library of this process, the other for the processes that it begins.
            setenv(RuntimeVariable, RuntimeDirectory, 1);
            Environment.SetEnvironmentVariable(RuntimeVariable, RuntimeDirectory);
            int failed = RunAll(Tests(filters));
            Directory.Delete(RuntimeDirectory, true);
            return failed;
        }

        /// <summary>A process that runs the method of that name, which has <see cref="ProgramAttribute"/>; its output is to be read.</summary>
        internal static Process Begin(string role, string name)
        {
            // What runs is this program, or "dotnet", which is told what to run.
            var start = new ProcessStartInfo(Process.GetCurrentProcess().MainModule.FileName) { RedirectStandardOutput = true };
            string assembly = Assembly.GetExecutingAssembly().Location;
            if (Path.GetFileName(start.FileName) != Path.GetFileNameWithoutExtension(assembly))
            {
                start.ArgumentList.Add(assembly);
            }
            start.ArgumentList.Add(role);
            start.ArgumentList.Add(name);
            return Process.Start(start);
        }

        private static int RunAll(List<MethodInfo> tests)
        {
            int failed = 0;
            foreach (MethodInfo test in tests)
            {
                var since = Stopwatch.StartNew();
                Exception error = Run(test);
                failed += error == null ? 0 : 1;
                Console.WriteLine("{0} ... {1} ({2} ms)", test.Name, error == null ? "ok" : "FAILED", since.ElapsedMilliseconds);
                if (error != null)
                {
                    Console.WriteLine(error);
                }
            }
            Console.WriteLine("{0} passed, {1} failed, .NET {2}", tests.Count - failed, failed, Environment.Version);
            return failed == 0 && tests.Count > 0 ? 0 : 1;
        }

        private static IEnumerable<MethodInfo> Marked<T>()
        {
            const BindingFlags All = BindingFlags.Static | BindingFlags.Public | BindingFlags.NonPublic;
            return Assembly.GetExecutingAssembly().GetTypes()
                .SelectMany(type => type.GetMethods(All))
                .Where(method => method.IsDefined(typeof(T), false));
        }

        private static List<MethodInfo> Tests(string[] filters)
        {
            return Marked<TestAttribute>()
                .Where(method => filters.Length == 0 || filters.Any(method.Name.Contains))
                .ToList();
        }

        /// <summary>What went wrong; null if nothing.</summary>
        private static Exception Run(MethodInfo test)
        {
            Exception error = null;
            var thread = new Thread(() =>
            {
                try
                {
                    test.Invoke(null, null);
                    Channel.CheckNothingLeft();
                }
                catch (TargetInvocationException failure)
                {
                    error = failure.InnerException;
                }
                catch (Exception failure)
                {
                    error = failure;
                }
            });
            thread.IsBackground = true;
            thread.Start();
            return thread.Join(Limit) ? error : new TimeoutException("hangs: not finished after " + Limit);
        }
    }

    /// <summary>Channel names of this process.</summary>
    internal static class Channel
    {
        private static readonly string Prefix = "zbcs" + Process.GetCurrentProcess().Id + "x";
        private static int _count;

        /// <summary>One that was not used before.</summary>
        internal static string New()
        {
            return Prefix + Interlocked.Increment(ref _count);
        }

        /// <summary>The names of objects of this process's channels.</summary>
        internal static string[] Objects()
        {
            return Directory.GetFileSystemEntries("/dev/shm").Where(path => path.Contains(Prefix)).ToArray();
        }

        /// <summary>Whether the channel is there.</summary>
        internal static bool HasObjects(string name)
        {
            return Directory.GetFileSystemEntries("/dev/shm").Any(path => path.Contains(name));
        }

        internal static void CheckNothingLeft()
        {
            string[] left = Objects();
            Check.That(left.Length == 0, "left behind: " + string.Join(", ", left));
        }
    }

    internal sealed class CheckFailed : Exception
    {
        internal CheckFailed(string message) : base(message)
        {
        }
    }

    internal static class Check
    {
        internal static void That(bool holds, string otherwise)
        {
            if (!holds)
            {
                throw new CheckFailed(otherwise);
            }
        }

        internal static void Equal<T>(T expected, T found)
        {
            That(EqualityComparer<T>.Default.Equals(expected, found), "expected " + expected + ", found " + found);
        }

        internal static void Bytes(byte[] expected, ReadOnlySpan<byte> found)
        {
            That(found.SequenceEqual(expected), "expected " + BitConverter.ToString(expected) + ", found " + BitConverter.ToString(found.ToArray()));
        }

        /// <summary>The exception that <paramref name="action"/> must throw.</summary>
        internal static T Throws<T>(Action action) where T : Exception
        {
            try
            {
                action();
            }
            catch (T error)
            {
                return error;
            }
            catch (Exception error)
            {
                throw new CheckFailed("expected " + typeof(T).Name + ", found " + error);
            }
            throw new CheckFailed("expected " + typeof(T).Name + ", but it succeeded");
        }

        /// <summary>Waits until it holds, for as long as a busy machine may take.</summary>
        internal static void Eventually(string what, Func<bool> holds)
        {
            var since = Stopwatch.StartNew();
            while (!holds())
            {
                That(since.Elapsed < Scene.Patience, "never came: " + what);
                Thread.Sleep(1);
            }
        }
    }

    /// <summary>What many tests begin with.</summary>
    internal static class Scene
    {
        /// <summary>For what succeeds at once on an idle machine.</summary>
        internal static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);
        internal static readonly BufferConfig Sizes = new BufferConfig(256, 1 << 16);

        /// <summary>A server that inverts every byte; it fails with "empty" if there are none.</summary>
        internal static InPlaceDuplexServer Inverter(string name, ServerConfig config = null)
        {
            InPlaceDuplexServer server = InPlaceDuplexServer.Create(name, config ?? Sizes);
            server.Start(Invert);
            return server;
        }

        internal static void Invert(Frame frame)
        {
            if (frame.Length == 0)
            {
                throw new ArgumentException("empty");
            }
            Span<byte> data = frame.Data;
            for (int index = 0; index < data.Length; index++)
            {
                data[index] ^= 255;
            }
        }

        internal static DuplexClient Client(string name, ClientConfig config = null)
        {
            return DuplexClient.Connect(name, Patience, config);
        }

        /// <summary>Collects what nothing refers to, and waits until its finalizers have run.</summary>
        internal static void Collect()
        {
            for (int round = 0; round < 3; round++)
            {
                GC.Collect();
                GC.WaitForPendingFinalizers();
            }
        }

        /// <summary>Runs it on a thread of its own, whose stack is freed afterwards: no forgotten reference stays on it.</summary>
        internal static void Elsewhere(Action action)
        {
            Exception error = null;
            var thread = new Thread(() =>
            {
                try
                {
                    action();
                }
                catch (Exception failure)
                {
                    error = failure;
                }
            });
            thread.Start();
            thread.Join();
            if (error != null)
            {
                throw new CheckFailed(error.ToString());
            }
        }
    }
}
