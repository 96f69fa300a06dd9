using System;
using System.Diagnostics;
using System.IO;
using System.IO.MemoryMappedFiles;

namespace ZeroBuffer.Tests
{
    /// <summary>What programs are told that cannot have the native library.</summary>
    internal static class PlatformTests
    {
        /// <summary>As the runtime for musl has it: the library of musl among what is mapped.</summary>
        [Program]
        private static void UseWithMapped(string file)
        {
            using (MemoryMappedFile mapped = MemoryMappedFile.CreateFromFile(file))
            using (mapped.CreateViewAccessor())
            {
                try
                {
                    CoreDumps.Include(false);
                    Console.WriteLine("works");
                }
                catch (TypeInitializationException error)
                {
                    Console.WriteLine(error.InnerException.GetType().Name + ": " + error.InnerException.Message);
                }
            }
        }

        [Test]
        private static void a_program_on_musl_is_told_so_when_it_starts()
        {
            string folder = Path.Combine(Path.GetTempPath(), Channel.New());
            Directory.CreateDirectory(folder);
            try
            {
                Check.Equal("works", Said(Path.Combine(folder, "ld-linux-x86-64.so.2")));
                Check.Equal(
                    "PlatformNotSupportedException: ZeroBuffer runs on linux-x64 and linux-arm64 with glibc; this program has musl",
                    Said(Path.Combine(folder, "ld-musl-x86_64.so.1")));
            }
            finally
            {
                Directory.Delete(folder, true);
            }
        }

        private static string Said(string file)
        {
            File.WriteAllText(file, "mapped");
            using (Process program = Runner.Begin(nameof(UseWithMapped), file))
            {
                string said = program.StandardOutput.ReadToEnd().Trim();
                program.WaitForExit();
                return said;
            }
        }
    }
}
